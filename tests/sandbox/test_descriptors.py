"""Descriptors on a Unix socket: one at most, never waited for, never inherited."""

import os
import socket
from collections.abc import Iterator

import pytest

from sandbox import descriptors
from tests.sandbox.handles import own_fds

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, two:
        yield one, two


def test_a_socket_arrives_and_works(pair: Pair) -> None:
    mine, theirs = socket.socketpair()
    with mine:
        with theirs:
            descriptors.send(pair[0], b"packet", theirs)
        packet, fd = descriptors.receive(pair[1], 100)
        assert packet == b"packet"
        assert fd is not None
        with descriptors.stream(fd) as line:
            assert (line.family, line.type) == (socket.AF_UNIX, socket.SOCK_STREAM)
            mine.send(b"through")
            assert line.recv(100) == b"through"


def test_a_packet_without_a_socket_brings_none(pair: Pair) -> None:
    descriptors.send(pair[0], b"packet", None)
    assert descriptors.receive(pair[1], 100) == (b"packet", None)


def test_the_end_is_an_empty_packet(pair: Pair) -> None:
    pair[0].close()
    assert descriptors.receive(pair[1], 100) == (b"", None)


def test_a_packet_is_cut_at_its_most(pair: Pair) -> None:
    descriptors.send(pair[0], b"x" * 50, None)
    descriptors.send(pair[0], b"next", None)
    assert descriptors.receive(pair[1], 10) == (b"x" * 10, None)
    assert descriptors.receive(pair[1], 10) == (b"next", None)


def test_a_received_socket_is_not_inherited_by_programs(pair: Pair) -> None:
    descriptors.send(pair[0], b"packet", pair[0])
    _, fd = descriptors.receive(pair[1], 100)
    assert fd is not None
    try:
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


@pytest.mark.timeout(5)
def test_a_full_socket_raises_instead_of_waiting(pair: Pair) -> None:
    def send_without_end() -> None:
        for _ in range(100_000):
            descriptors.send(pair[0], b"packet", None)

    with pytest.raises(BlockingIOError):
        send_without_end()


def test_of_several_descriptors_one_is_taken_and_none_is_left_open(pair: Pair) -> None:
    before = own_fds()
    socket.send_fds(pair[0], [b"packet"], [pair[0].fileno()] * 3)
    packet, fd = descriptors.receive(pair[1], 100)
    assert packet == b"packet"
    assert fd is not None
    os.close(fd)
    assert own_fds() == before


@pytest.mark.parametrize("blocking", [True, False])
def test_nothing_there_raises_only_on_a_socket_that_does_not_block(
    pair: Pair, blocking: bool
) -> None:
    pair[1].settimeout(0.05 if blocking else 0)
    with pytest.raises(TimeoutError if blocking else BlockingIOError):
        descriptors.receive(pair[1], 100)
