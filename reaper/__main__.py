"""The reaper's switch: settings, the fall from root, a sweep twice a second until told to stop.

Runs in: the reaper (`python -m reaper`).
"""

import contextlib
import logging
import os
import signal
import sys
import threading

from setproctitle import setproctitle

from reaper import settings
from reaper.removal import Removal
from reaper.sweep import sweep
from sandbox import clock, logs
from sandbox.blocking import BlockingClient
from sandbox.errors import ZygoteGone
from sandbox.notify import Notifier
from sandbox.place import Place
from sandbox.settings import SettingsError

EXIT_SETTINGS = 2
_ZYGOTE_TIMEOUT_S = 5.0

log = logging.getLogger("walkin.reaper")


def main() -> int:
    """Be the reaper; return its exit status."""
    setproctitle("walkin: reaper")
    try:
        chosen = settings.from_environ(os.environ)
    except SettingsError as error:
        for mistake in error.mistakes:
            print(mistake, file=sys.stderr)
        return EXIT_SETTINGS
    logs.begin(chosen.log_format, logging.WARNING)
    # Whoever starts the zygote, or the zygote itself, has made the folders.
    place = Place(chosen.data_dir)
    chosen.cell_user.become()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    parent = os.getppid()
    removal = Removal(place, BlockingClient(place.run, _ZYGOTE_TIMEOUT_S))
    notifier = Notifier(os.environ)

    def is_over() -> bool:
        notifier.alive()  # a sweep may take long
        return stop.is_set()

    with contextlib.suppress(ZygoteGone):  # it hears of us later
        removal.tell()
    notifier.ready()
    while not stop.wait(settings.SWEEP_S):
        notifier.alive()
        if os.getppid() != parent:
            log.warning("the process that started the reaper is gone")
            break
        try:
            time_here = clock.read(place)
            if time_here is not None:  # else the zygote has not started yet
                sweep(place, removal, time_here.now(), is_over)
            removal.tell()
        except ZygoteGone as cause:
            log.info("the zygote does not hear: %s", cause)
        except OSError as cause:
            log.error("sweep: %s", cause)
    notifier.stopping()
    return 0


if __name__ == "__main__":
    sys.exit(main())
