"""Descriptors on a Unix socket: one packet out with at most one of them, one packet in.

Runs in: every process; standard library only. socket.send_fds and recv_fds of the standard library
take flags and pass over them (CPython 3.11 to 3.13), and here they matter: who sends to a hostile
cell must not wait for it, and what is received must not be inherited.
"""

import array
import socket

_FD_BYTES = array.array("i").itemsize


def send(sock: socket.socket, packet: bytes, carried: socket.socket | None) -> None:
    """Send a packet and a duplicate of a socket without waiting. Raises OSError."""
    fds = array.array("i", [carried.fileno()] if carried else [])
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)] if carried else []
    sock.sendmsg([packet], ancillary, socket.MSG_DONTWAIT)


def receive(sock: socket.socket, most: int) -> tuple[bytes, int | None]:
    """Return a packet of at most `most` bytes and the descriptor that came with it.

    Empty at the end. Raises OSError.
    """
    packet, ancillary, _, _ = sock.recvmsg(
        most, socket.CMSG_LEN(_FD_BYTES), socket.MSG_CMSG_CLOEXEC
    )
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            return packet, array.array("i", data[:_FD_BYTES])[0]
    return packet, None


def stream(fd: int) -> socket.socket:
    """Return the line behind a descriptor; a jailed process may not ask the kernel for its type."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=fd)
