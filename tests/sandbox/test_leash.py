"""The leash: orders arrive whole with their line; reports arrive harmless and short."""

import os
import socket
from collections.abc import Iterator

import pytest

from sandbox import leash
from sandbox.leash import MAX_REPORT, Order, Report
from tests.sandbox.handles import own_fds

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """The zygote's end and the cell's."""
    zygote, cell = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with zygote, cell:
        yield zygote, cell


def test_an_order_brings_its_instance_its_size_and_its_line(pair: Pair) -> None:
    zygote, cell = pair
    mine, theirs = socket.socketpair()
    with mine, theirs:
        leash.send_order(zygote, Order.ASSIGN, bytes(range(16)), 77, theirs)
        order, instance, pages, line = leash.receive_order(cell)
        assert (order, instance, pages) == (Order.ASSIGN, bytes(range(16)), 77)
        assert line is not None
        with line:
            mine.send(b"through")
            assert line.recv(100) == b"through"


def test_an_order_without_a_line_brings_none(pair: Pair) -> None:
    zygote, cell = pair
    leash.send_order(zygote, Order.RETIRE, bytes(16))
    assert leash.receive_order(cell) == (Order.RETIRE, bytes(16), 0, None)


def test_orders_keep_their_sequence(pair: Pair) -> None:
    zygote, cell = pair
    for order in (Order.CONNECT, Order.CONNECT, Order.RETIRE):
        leash.send_order(zygote, order, bytes(16))
    got = [leash.receive_order(cell)[0] for _ in range(3)]
    assert got == [Order.CONNECT, Order.CONNECT, Order.RETIRE]


def test_a_received_line_is_not_inherited_by_programs(pair: Pair) -> None:
    zygote, cell = pair
    mine, theirs = socket.socketpair()
    with mine, theirs:
        os.set_inheritable(theirs.fileno(), True)
        leash.send_order(zygote, Order.CONNECT, bytes(16), line=theirs)
        _, _, _, line = leash.receive_order(cell)
    assert line is not None
    with line:
        assert not line.get_inheritable()


def test_the_zygotes_end_is_the_end_of_orders(pair: Pair) -> None:
    zygote, cell = pair
    zygote.close()
    with pytest.raises(EOFError):
        leash.receive_order(cell)


@pytest.mark.timeout(5)
def test_an_order_to_a_cell_that_does_not_read_raises_instead_of_waiting(pair: Pair) -> None:
    zygote, _ = pair

    def send_without_end() -> None:
        for _ in range(100_000):
            leash.send_order(zygote, Order.CONNECT, bytes(16))

    with pytest.raises(BlockingIOError):
        send_without_end()


def test_an_order_to_a_cell_that_is_gone_raises(pair: Pair) -> None:
    zygote, cell = pair
    cell.close()
    with pytest.raises(OSError, match=r"Broken pipe|reset"):
        leash.send_order(zygote, Order.RETIRE, bytes(16))


@pytest.mark.parametrize(
    ("report", "text"), [(Report.READY, ""), (Report.FAULT, "cell: OSError: no space (run:1)")]
)
def test_a_report_arrives_as_number_and_printable_text(
    pair: Pair, report: Report, text: str
) -> None:
    zygote, cell = pair
    leash.send_report(cell, report, text)
    assert leash.receive_report(zygote) == (report, repr(text))


@pytest.mark.parametrize(
    "sent",
    [
        b"\x02\x1b[2J\x1b[1;31m",
        b"\x02line\nforged: another line\r",
        b"\x02\xff\xfe\x80",
        b"\x02\xe2\x80\xae\xf0\x9f\x98\x80",
        b"\x02\0\0",
        b"\xff",
    ],
)
def test_hostile_bytes_are_made_printable_ascii_on_one_line(pair: Pair, sent: bytes) -> None:
    zygote, cell = pair
    cell.send(sent)
    report = leash.receive_report(zygote)
    assert report is not None
    number, text = report
    assert number == sent[0]
    assert text.isascii()
    assert text.isprintable()


def test_a_long_report_is_cut_by_its_sender(pair: Pair) -> None:
    zygote, cell = pair
    leash.send_report(cell, Report.FAULT, "x" * 10_000)
    assert leash.receive_report(zygote) == (Report.FAULT, repr("x" * (MAX_REPORT - 1)))


def test_a_long_report_is_cut_by_its_receiver_too(pair: Pair) -> None:
    zygote, cell = pair
    cell.send(b"\x02" + b"x" * 10_000)
    cell.send(b"\x01")
    assert leash.receive_report(zygote) == (Report.FAULT, repr("x" * (MAX_REPORT - 1)))
    assert leash.receive_report(zygote) == (Report.READY, "''")


def test_a_report_that_is_cut_within_a_letter_still_arrives(pair: Pair) -> None:
    zygote, cell = pair
    leash.send_report(cell, Report.FAULT, "\u00e9" * 5000)
    report = leash.receive_report(zygote)
    assert report is not None
    assert report[1].isascii()


def test_text_that_is_no_unicode_is_reported_all_the_same(pair: Pair) -> None:
    zygote, cell = pair
    leash.send_report(cell, Report.FAULT, "a\ud800b")
    assert leash.receive_report(zygote) == (Report.FAULT, repr("a?b"))


def test_no_report_yet_raises_instead_of_waiting(pair: Pair) -> None:
    zygote, _ = pair
    with pytest.raises(BlockingIOError):
        leash.receive_report(zygote)


def test_after_the_last_report_of_a_cell_comes_none(pair: Pair) -> None:
    zygote, cell = pair
    leash.send_report(cell, Report.READY)
    cell.close()
    assert leash.receive_report(zygote) == (Report.READY, "''")
    assert leash.receive_report(zygote) is None


def test_an_empty_packet_counts_as_the_end(pair: Pair) -> None:
    zygote, cell = pair
    cell.send(b"")
    assert leash.receive_report(zygote) is None


def test_descriptors_that_a_cell_sends_along_are_not_taken(pair: Pair) -> None:
    zygote, cell = pair
    before = own_fds()
    socket.send_fds(cell, [b"\x01"], [cell.fileno(), cell.fileno()])
    assert leash.receive_report(zygote) == (Report.READY, "''")
    assert own_fds() == before
