"""The sign of life: tells whoever started a program that it is ready, alive, or going.

Runs in: every program; standard library only. The protocol is systemd's, one datagram to the
socket that NOTIFY_SOCKET names (sd_notify(3)); `walkin serve` listens in the same way to what it
starts. Without that variable nothing is said.
"""

import contextlib
import os
import socket
import time
from collections.abc import Mapping

_ALIVE_S = 0.5

READY = b"READY=1"
ALIVE = b"WATCHDOG=1"
_STOPPING = b"STOPPING=1"


class Notifier:
    """One program's way to its starter. Lost words are not missed: the next ones say the same."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        self._said_at = 0.0

    def ready(self) -> None:
        """Say that all that is needed stands."""
        self._say(READY)

    def alive(self) -> None:
        """Say that the program's loop goes round; costs nothing when it goes round often."""
        now = time.monotonic()
        if now - self._said_at >= _ALIVE_S:
            self._said_at = now
            self._say(ALIVE)

    def stopping(self) -> None:
        """Say that it is on its way out."""
        self._say(_STOPPING)

    def _say(self, word: bytes) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(word, socket.MSG_DONTWAIT, os.fsencode(self._address))
