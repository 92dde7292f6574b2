"""The zygote's switch: settings, preload, walls, the fall from root, listen.

Runs in: the zygote (`python -m sandbox`). The control socket comes as a descriptor, from
`walkin serve` or from systemd (sd_listen_fds(3)).
"""

import argparse
import gc
import logging
import os
import resource
import socket
import sys
import time
from pathlib import Path

from setproctitle import setproctitle

from sandbox import clock, jail, logs, settings
from sandbox.control import Op
from sandbox.errors import NodeBusy, WallError
from sandbox.notify import Notifier
from sandbox.place import Place
from sandbox.sqlite import blank_database
from sandbox.zygote import Zygote

#: Exit statuses that a starter must not answer with another start.
EXIT_SETTINGS = 2
EXIT_WALLS = 3
#: One that a starter answers with another start: the machine was short of something.
EXIT_AGAIN = 1


def main() -> int:
    """Be the zygote; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=__doc__)
    parser.add_argument("--listen-fd", type=int, default=3)
    listen_fd = parser.parse_args().listen_fd
    setproctitle("walkin: zygote")
    try:
        chosen = settings.from_environ(os.environ)
        walls = jail.prepare()
    except settings.SettingsError as error:
        for mistake in error.mistakes:
            print(mistake, file=sys.stderr)
        return EXIT_SETTINGS
    except WallError as error:
        print(f"walkin cannot start: {error}", file=sys.stderr)
        return EXIT_WALLS
    logs.begin(chosen.log_format, logging.WARNING)
    os.umask(0o077)
    # Local time is UTC in every cell, without a file to read for it.
    os.environ["TZ"] = "UTC0"
    time.tzset()
    place = Place(chosen.data_dir)
    starter = os.geteuid()
    if status := _settle(place, chosen):
        return status
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    database = blank_database()
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads != 1:
        # Landlock below ABI 8 binds only the thread that asks, and fork copies only one.
        print(f"walkin cannot start: the zygote has {threads} threads", file=sys.stderr)
        return EXIT_WALLS
    front = frozenset({chosen.front_user.uid if chosen.front_user else starter})
    reaper = front | {chosen.reaper_user.uid if chosen.reaper_user else os.geteuid()}
    may_ask = {
        Op.CREATE: front,
        Op.OPEN: front,
        Op.TOUCH: front,
        Op.FORK: front,
        Op.STATES: front,
        Op.KEEP: front,
        Op.GO_BACK: front,
        Op.DROP: front,
        Op.EXTEND: front,
        Op.END_AT: front,
        Op.KILL: reaper,
        Op.STATUS: reaper,
        Op.REAPED: reaper,
    }
    listener = socket.socket(fileno=listen_fd)
    os.set_inheritable(listen_fd, False)
    notifier = Notifier(os.environ)
    try:
        time_here = clock.keep(place)
        zygote = Zygote(
            listener, place, time_here, chosen, walls, database, may_ask, notifier.alive
        )
        # What is here now lives as long as we do: keep the collector from touching shared pages.
        gc.collect()
        gc.freeze()
        zygote.prove_walls()
    except (WallError, NodeBusy, OSError) as error:
        print(f"walkin cannot start: {error}", file=sys.stderr)
        return EXIT_WALLS if isinstance(error, WallError) else EXIT_AGAIN
    notifier.ready()
    zygote.serve()
    notifier.stopping()
    return 0


def _settle(place: Place, chosen: settings.Settings) -> int:
    """Make the folders and become the cells' user; return 0, or why that cannot be as a status."""
    try:
        place.prepare(chosen.cell_user.uid, chosen.cell_user.gid)
        is_read_only = os.statvfs(place.cells).f_flag & os.ST_RDONLY
    except OSError as error:
        print(f"walkin cannot start: {error}", file=sys.stderr)
        return EXIT_AGAIN
    chosen.cell_user.become()
    if os.access(place.cells, os.R_OK | os.W_OK | os.X_OK):
        return 0
    if is_read_only:
        print(f"walkin cannot start: {place.cells} is on a read-only disk", file=sys.stderr)
        return EXIT_AGAIN
    print(
        f"walkin cannot start: user {chosen.cell_user.uid}, which runs the cells, cannot reach "
        f"{place.cells}; choose another data folder or another cell user",
        file=sys.stderr,
    )
    return EXIT_SETTINGS


if __name__ == "__main__":
    sys.exit(main())
