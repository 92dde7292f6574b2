"""The control socket: its packets, and a path that may be as deep as it likes."""

import os
import socket
import stat
import struct
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox import control
from sandbox.control import Op, Outcome, Reply, Request
from sandbox.errors import ControlError
from tests.sandbox.handles import own_fds

numbers = st.integers(0, 0xFFFF_FFFF)
seconds = st.integers(0, (1 << 64) - 1)
ids = st.binary(min_size=16, max_size=16)
names = st.just("") | st.from_regex(control.NAME, fullmatch=True)
#: As long as a request is, so that some of them are one.
packets = st.binary(max_size=len(control.encode_request(Op.OPEN, 1)))


# --- packets ---


@given(
    op=st.sampled_from(Op),
    number=numbers,
    instance=ids,
    amount=numbers,
    cell=seconds,
    until=seconds,
    source=ids,
    name=names,
)
def test_a_request_comes_back_as_it_was_asked(
    op: Op,
    number: int,
    instance: bytes,
    amount: int,
    cell: int,
    until: int,
    source: bytes,
    name: str,
) -> None:
    packet = control.encode_request(op, number, instance, amount, cell, until, source, name)
    asked = Request(op, number, instance, amount, cell, until, source, name)
    assert control.decode_request(packet) == asked


@given(
    outcome=st.sampled_from(Outcome),
    number=numbers,
    expires=seconds,
    text=st.binary(),
    cell=seconds,
    ends=seconds,
)
def test_a_reply_comes_back_as_it_was_given(
    outcome: Outcome, number: int, expires: int, text: bytes, cell: int, ends: int
) -> None:
    packet = control.encode_reply(outcome, number, expires, text, cell, ends)
    assert control.decode_reply(packet) == Reply(outcome, number, expires, text, cell, ends)


@given(packet=packets | st.binary(min_size=120).map(lambda rest: bytes([Op.KEEP]) + rest[:120]))
def test_any_packet_is_a_request_or_a_control_error(packet: bytes) -> None:
    try:
        request = control.decode_request(packet)
    except ControlError:
        return
    assert control.encode_request(*request) == packet


@given(packet=st.binary(max_size=64))
def test_any_packet_is_a_reply_or_a_control_error(packet: bytes) -> None:
    try:
        reply = control.decode_reply(packet)
    except ControlError:
        return
    assert control.encode_reply(*reply) == packet


@given(packet=st.binary(max_size=64))
def test_any_packet_is_a_touch_or_none_or_a_control_error(packet: bytes) -> None:
    try:
        touched = control.decode_touch(packet)
    except ControlError:
        return
    assert touched is None or control.encode_touch(touched) == packet


REQUEST = control.encode_request(Op.OPEN, 1)
REPLY = control.encode_reply(Outcome.DONE, 1)


@pytest.mark.parametrize("size", [0, 1, len(REQUEST) - 1, len(REQUEST) + 1, 4096])
def test_a_request_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(ControlError, match=f"request of {size} bytes"):
        control.decode_request(bytes([Op.OPEN]) * size)


@pytest.mark.parametrize("op", [0, 14, 255])
def test_an_unknown_operation_is_refused(op: int) -> None:
    with pytest.raises(ControlError, match=f"unknown control operation {op}"):
        control.decode_request(bytes([op]) + REQUEST[1:])


@pytest.mark.parametrize("name", [".", "../x", "a/b", "a\0b", "-a", "a" * 65, "a\n", "é"])
def test_a_name_that_is_none_is_neither_sent_nor_taken(name: str) -> None:
    with pytest.raises(ControlError):
        control.encode_request(Op.KEEP, 1, name=name)
    packet = control.encode_request(Op.KEEP, 1, name="x")
    sent = name.encode()[: control.NAME_BYTES]
    if sent != b"a" * control.NAME_BYTES:
        with pytest.raises(ControlError, match="name"):
            control.decode_request(packet[: -control.NAME_BYTES] + sent.ljust(64, b"\0"))


def test_a_question_is_awaited_until_its_time() -> None:
    now_ms = int(time.monotonic() * 1000)
    assert Request(Op.OPEN, 1, bytes(16)).is_awaited
    assert Request(Op.OPEN, 1, bytes(16), until=now_ms + 60_000).is_awaited
    assert not Request(Op.OPEN, 1, bytes(16), until=now_ms - 1).is_awaited


@pytest.mark.parametrize("outcome", control.REFUSALS)
def test_a_refusal_is_said_and_understood(outcome: Outcome) -> None:
    assert control.outcome_of(control.REFUSALS[outcome]()) is outcome


def test_whatever_else_is_in_the_way_is_a_failure() -> None:
    assert control.outcome_of(ControlError("x")) is Outcome.FAILED


@pytest.mark.parametrize("outcome", [8, 255])
def test_an_unknown_outcome_is_refused(outcome: int) -> None:
    with pytest.raises(ControlError, match=f"unknown control outcome {outcome}"):
        control.decode_reply(bytes([outcome]) + REPLY[1:])


@pytest.mark.parametrize("size", [0, 1, len(REPLY) - 1])
def test_a_reply_shorter_than_its_head_is_refused(size: int) -> None:
    with pytest.raises(ControlError, match=f"reply of {size} bytes"):
        control.decode_reply(REPLY[:size])


def test_an_operation_but_touch_is_no_touch() -> None:
    for op in set(Op) - {Op.TOUCH}:
        assert control.decode_touch(control.encode_request(op, 1)) is None
    assert control.decode_touch(b"") is None


def test_a_touch_of_broken_ids_is_refused() -> None:
    with pytest.raises(ControlError, match="TOUCH of 16 bytes"):
        control.decode_touch(bytes([Op.TOUCH]) + bytes(15))


def test_the_longest_touch_fits_one_packet() -> None:
    most = [os.urandom(16) for _ in range(control.TOUCH_MOST)]
    packet = control.encode_touch(most)
    assert len(packet) <= control.MAX_PACKET < len(packet) + control.ID_BYTES
    assert control.decode_touch(packet) == most


# --- the socket ---


def greet(run_dir: Path) -> None:
    """Say something through a control socket in that folder, and hear it."""
    listener = control.listen(run_dir)
    with listener, control.connect(run_dir) as asker:
        server, _ = listener.accept()
        with server:
            asker.send(b"question")
            assert server.recv(100) == b"question"


def test_packets_keep_their_borders(tmp_path: Path) -> None:
    with control.listen(tmp_path) as listener, control.connect(tmp_path) as asker:
        server, _ = listener.accept()
        with server:
            asker.send(b"one")
            asker.send(b"two")
            assert [server.recv(100), server.recv(100)] == [b"one", b"two"]


def test_a_folder_may_be_deeper_than_a_socket_address(tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(8):
        deep /= "a-folder-with-a-rather-long-name"
    deep.mkdir(parents=True)
    assert len(str(deep)) > 108
    greet(deep)


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    control.listen(tmp_path).close()
    assert (tmp_path / "control.sock").is_socket()
    greet(tmp_path)


def test_any_user_may_connect(tmp_path: Path) -> None:
    with control.listen(tmp_path):
        assert stat.S_IMODE((tmp_path / "control.sock").stat().st_mode) == 0o666


def test_callers_wait_in_the_queue_while_nobody_accepts(tmp_path: Path) -> None:
    with control.listen(tmp_path) as listener:
        askers = [control.connect(tmp_path) for _ in range(50)]
        for asker in askers:
            asker.send(b"early")
        for asker in askers:
            server, _ = listener.accept()
            with server:
                assert server.recv(100) == b"early"
            asker.close()


@pytest.mark.parametrize("state", ["no folder", "no socket", "stale socket", "a file"])
def test_connecting_to_nobody_raises_os_error_and_leaves_nothing_open(
    tmp_path: Path, state: str
) -> None:
    run_dir = tmp_path / "run"
    if state != "no folder":
        run_dir.mkdir()
    if state == "stale socket":
        control.listen(run_dir).close()
    if state == "a file":
        (run_dir / "control.sock").touch()
    before = own_fds()
    with pytest.raises(OSError, match=r"No such file|refused"):
        control.connect(run_dir)
    assert own_fds() == before


def test_listening_in_no_folder_raises_os_error_and_leaves_nothing_open(tmp_path: Path) -> None:
    before = own_fds()
    with pytest.raises(FileNotFoundError) as raised:
        control.listen(tmp_path / "none")
    # Held back until now: what it closed by losing the last reference would not count.
    assert own_fds() == before
    assert raised.value.errno


def test_sockets_are_not_inherited_by_programs(tmp_path: Path) -> None:
    with control.listen(tmp_path) as listener, control.connect(tmp_path) as asker:
        assert not listener.get_inheritable()
        assert not asker.get_inheritable()


def test_the_peers_user_can_be_told(tmp_path: Path) -> None:
    with control.listen(tmp_path) as listener, control.connect(tmp_path):
        server, _ = listener.accept()
        with server:
            peer = server.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            assert struct.unpack("3i", peer) == (os.getpid(), os.geteuid(), os.getegid())
