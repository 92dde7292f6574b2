"""The reaper's switch: settings, the fall from root, a sweep twice a second until told to stop.

Runs in: the reaper (`python -m reaper`).
"""

import logging
import os
import signal
import sys
import threading
import time

from setproctitle import setproctitle

from reaper import settings
from reaper.removal import Removal
from reaper.sweep import sweep
from sandbox.client import BlockingClient
from sandbox.place import Place
from sandbox.settings import SettingsError

EXIT_SETTINGS = 2
_ZYGOTE_TIMEOUT_S = 5.0

log = logging.getLogger("walkin.reaper")


def main() -> int:
    """Be the reaper; return its exit status."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    setproctitle("walkin: reaper")
    try:
        chosen = settings.from_environ(os.environ)
    except SettingsError as error:
        for mistake in error.mistakes:
            print(mistake, file=sys.stderr)
        return EXIT_SETTINGS
    place = Place(chosen.data_dir)
    place.prepare(chosen.cell_user.uid, chosen.cell_user.gid)
    chosen.cell_user.become()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    parent = os.getppid()
    removal = Removal(place, BlockingClient(place.run, _ZYGOTE_TIMEOUT_S))
    while not stop.wait(settings.SWEEP_S):
        if os.getppid() != parent:
            log.warning("the process that started the reaper is gone")
            break
        try:
            sweep(place, removal, time.time(), stop.is_set)
        except OSError as cause:
            log.error("sweep: %s", cause)
    return 0


if __name__ == "__main__":
    sys.exit(main())
