"""The messages between the zygote and one cell: one packet each (SOCK_SEQPACKET).

Runs in: zygote and cells; standard library only. The zygote sends orders and never waits for a
cell; what a cell sends back is a report for the log, of bounded size and from a hostile hand.
"""

import socket
from enum import IntEnum

from sandbox import descriptors

MAX_REPORT = 2048
_MAX_ORDER = 64


class Order(IntEnum):
    """What a cell is told. ASSIGN and CONNECT bring a line (a connected socket) with them."""

    ASSIGN = 1
    CONNECT = 2
    RETIRE = 3


class Report(IntEnum):
    """What a cell says.

    READY: the walls stand and the file is open. FAULT: what went wrong. TIRED: it has used much
    processor time and should be retired for a fresh one.
    """

    READY = 1
    FAULT = 2
    TIRED = 3


def send_order(
    leash: socket.socket, order: Order, instance: bytes, line: socket.socket | None
) -> None:
    """Send one order without waiting. Raises OSError, also when the cell does not read."""
    descriptors.send(leash, bytes([order]) + instance, line)


def receive_order(leash: socket.socket) -> tuple[Order, bytes, socket.socket | None]:
    """Wait for an order: what to do, for which instance, with which line.

    Raises EOFError when the zygote is gone.
    """
    packet, fd = descriptors.receive(leash, _MAX_ORDER)
    if not packet:
        raise EOFError
    return Order(packet[0]), packet[1:], None if fd is None else descriptors.stream(fd)


def send_report(leash: socket.socket, report: Report, text: str = "") -> None:
    """Send one report, cut to MAX_REPORT bytes."""
    packet = bytes([report]) + text.encode(errors="replace")[: MAX_REPORT - 1]
    leash.send(packet, socket.MSG_DONTWAIT)


def receive_report(leash: socket.socket) -> tuple[int, str] | None:
    """Return the next report, None at the end. Raises BlockingIOError when there is none yet.

    The number may be no Report at all and the text is made printable: the sender is hostile.
    """
    try:
        packet = leash.recv(MAX_REPORT, socket.MSG_DONTWAIT)
    except BlockingIOError:
        raise
    except OSError:
        return None
    if not packet:
        return None
    return packet[0], ascii(packet[1:].decode(errors="replace"))
