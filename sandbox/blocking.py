"""Asking the zygote, one question at a time: for the reaper, which has nothing else to wait for.

Runs in: reaper; standard library only, and no event loop.
"""

import itertools
import json
import socket
from pathlib import Path
from typing import Any

from sandbox import control
from sandbox.control import Op, Outcome, Reply
from sandbox.errors import ControlError, ZygoteGone


class BlockingClient:
    """One control connection, one question at a time."""

    def __init__(self, run_dir: Path, timeout_s: float) -> None:
        self._run_dir = run_dir
        self._timeout_s = timeout_s
        self._sock: socket.socket | None = None
        self._numbers = itertools.count(1)

    def ask_kill(self, instance: bytes) -> None:
        """Return when the database has no cell any more. Raises ZygoteGone."""
        self._ask(Op.KILL, instance)

    def tell_reaped(self, count: int) -> None:
        """Say that the reaper is alive and how many databases it removed. Raises ZygoteGone."""
        try:
            self._connected().send(control.encode_request(Op.REAPED, 0, amount=count))
        except OSError as cause:
            self.close()
            raise ZygoteGone(f"REAPED: {cause}") from cause

    def ask_status(self) -> dict[str, Any]:
        """Return what the zygote says of itself: walls, cells, limits. Raises ZygoteGone."""
        status: dict[str, Any] = json.loads(self._ask(Op.STATUS, bytes(control.ID_BYTES)).text)
        return status

    def _ask(self, op: Op, instance: bytes) -> Reply:
        number = next(self._numbers) & 0xFFFFFFFF
        try:
            sock = self._connected()
            sock.send(control.encode_request(op, number, instance))
            packet = sock.recv(control.MAX_PACKET)
            reply = control.decode_reply(packet)
        except (OSError, ControlError) as cause:
            self.close()
            raise ZygoteGone(f"{op.name}: {cause}") from cause
        if reply.number != number or reply.outcome is not Outcome.DONE:
            self.close()
            raise ZygoteGone(f"{op.name} answered with {reply.outcome.name}")
        return reply

    def _connected(self) -> socket.socket:
        if self._sock is None:
            self._sock = control.connect(self._run_dir)
            self._sock.settimeout(self._timeout_s)
        return self._sock

    def close(self) -> None:
        """Drop the connection; the next question makes a new one."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None
