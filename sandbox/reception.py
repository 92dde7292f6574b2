"""The reception: takes questions at the control socket, turns away who may not ask, sends replies.

Runs in: the zygote. It waits for nobody: whoever does not read his replies is hung up on.
"""

import contextlib
import logging
import selectors
import socket
import struct
from collections.abc import Callable
from typing import NamedTuple

from sandbox import control, descriptors
from sandbox.control import Op, Request
from sandbox.errors import ControlError

log = logging.getLogger("walkin.zygote")

#: struct ucred, unix(7)
_PEER = struct.Struct("3i")


class Asker(NamedTuple):
    """One control connection and the user at its other end."""

    sock: socket.socket
    uid: int

    @property
    def is_gone(self) -> bool:
        """Whether it was hung up on."""
        return self.sock.fileno() < 0


class Reception:
    """All the control connections. `may_ask` says which users may ask what.

    `answer` is called with each question, `touch` with each database that was used.
    """

    def __init__(
        self,
        listener: socket.socket,
        selector: selectors.BaseSelector,
        may_ask: dict[Op, frozenset[int]],
        answer: Callable[[Asker, Request], None],
        touch: Callable[[bytes], None],
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._selector = selector
        self._may_ask = may_ask
        self._answer = answer
        self._touch = touch
        self._accepting = False

    def open(self) -> None:
        """Let askers in, again if there was no descriptor for one."""
        if not self._accepting:
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
            self._accepting = True

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError as cause:
            # Most likely no descriptor is left: those who call wait in the queue.
            log.error("accept: %s", cause)
            self._selector.unregister(self._listener)
            self._accepting = False
            return
        peer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        _, uid, _ = _PEER.unpack(peer)
        if not any(uid in uids for uids in self._may_ask.values()):
            log.warning("control connection of user %d refused", uid)
            sock.close()
            return
        sock.setblocking(False)
        asker = Asker(sock, uid)
        self._selector.register(sock, selectors.EVENT_READ, lambda: self._read(asker))

    def _read(self, asker: Asker) -> None:
        try:
            packet = asker.sock.recv(control.MAX_PACKET)
            if not packet:
                self._hang_up(asker)
                return
            touched = control.decode_touch(packet)
            request = control.decode_request(packet) if touched is None else None
            op = request.op if request else Op.TOUCH
            if asker.uid not in self._may_ask[op]:
                raise ControlError(f"{op.name} is not for user {asker.uid}")
        except BlockingIOError:
            return
        except (OSError, ControlError) as cause:
            log.error("control connection of user %d dropped: %s", asker.uid, cause)
            self._hang_up(asker)
            return
        for instance in touched or ():
            self._touch(instance)
        if request:
            self.take(asker, request)

    def take(self, asker: Asker, request: Request) -> None:
        """Have a question answered, perhaps once more, unless nobody waits for that any longer."""
        if request.is_awaited and not asker.is_gone:
            self._answer(asker, request)

    def send(self, asker: Asker, packet: bytes, line: socket.socket | None) -> None:
        """Send a reply, and a line with it, which is closed here."""
        try:
            descriptors.send(asker.sock, packet, line)
        except OSError:
            # Gone, or not reading its answers: either way it is of no use any more.
            self._hang_up(asker)
        finally:
            if line:
                line.close()

    def _hang_up(self, asker: Asker) -> None:
        with contextlib.suppress(KeyError, ValueError):  # it may be closed already
            self._selector.unregister(asker.sock)
        asker.sock.close()
