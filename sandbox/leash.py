"""The messages between the zygote and one cell: one packet each (SOCK_SEQPACKET).

Runs in: zygote and cells; standard library only. The zygote sends orders and never waits for a
cell; what a cell sends back is a report for the log, of bounded size and from a hostile hand.
"""

import socket
import struct
from enum import IntEnum
from typing import NamedTuple

from sandbox import descriptors

MAX_REPORT = 2048
_ORDER = struct.Struct("!B16sI")


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


class Told(NamedTuple):
    """What to do, for which instance, of how many pages at most, with which line."""

    order: Order
    instance: bytes
    most_pages: int
    line: socket.socket | None


def send_order(
    leash: socket.socket,
    order: Order,
    instance: bytes,
    most_pages: int = 0,
    line: socket.socket | None = None,
) -> None:
    """Send one order without waiting. Raises OSError, also when the cell does not read."""
    descriptors.send(leash, _ORDER.pack(order, instance, most_pages), line)


def receive_order(leash: socket.socket) -> Told:
    """Wait for an order. Raises EOFError when the zygote is gone."""
    packet, fd = descriptors.receive(leash, _ORDER.size)
    if not packet:
        raise EOFError
    order, instance, most_pages = _ORDER.unpack(packet)
    line = None if fd is None else descriptors.stream(fd)
    return Told(Order(order), instance, most_pages, line)


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
