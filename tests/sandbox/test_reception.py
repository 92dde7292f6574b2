"""The reception from outside: who may ask what, and what becomes of those who break its rules."""

import os
import socket
import time

import pytest

from sandbox import control, settings
from sandbox.control import Op
from tests.sandbox.handles import AS_ROOT, CELL_USER, LATER, Zygote, in_child, new_id

as_root = pytest.mark.skipif(not AS_ROOT, reason="only root runs the cells as another user")


def asked(zygote: Zygote, sock: socket.socket, packet: bytes) -> bytes:
    """Send any packet on a connection and return the answer, empty for a hang-up."""
    try:
        sock.send(packet)
        return sock.recv(control.MAX_PACKET)
    except (BrokenPipeError, ConnectionResetError):
        return b""


@pytest.mark.parametrize(
    "packet",
    [
        bytes([99]) + control.encode_request(Op.OPEN, 1)[1:],
        bytes([0]) + control.encode_request(Op.OPEN, 1)[1:],
        b"short",
        bytes(4096),
        bytes([Op.TOUCH]) + bytes(15),
        control.encode_request(Op.OPEN, 1) + b"more",
    ],
    ids=["unknown", "zero", "short", "long", "broken touch", "long open"],
)
def test_a_packet_that_breaks_the_rules_ends_that_connection_alone(
    zygote: Zygote, packet: bytes
) -> None:
    other = zygote.connect()
    assert asked(zygote, other, packet) == b""
    assert zygote.status()["walls"]["seccomp"] is True


def test_an_asker_that_hangs_up_before_its_answer_hurts_nobody(zygote: Zygote) -> None:
    for _ in range(5):
        hasty = zygote.connect()
        hasty.send(control.encode_request(Op.CREATE, 1, new_id(), LATER))
        hasty.send(control.encode_request(Op.STATUS, 2))
        hasty.close()
    assert zygote.status()["walls"]["seccomp"] is True


@pytest.mark.timeout(20)
def test_an_asker_that_does_not_read_its_answers_is_dropped(zygote: Zygote) -> None:
    deaf = zygote.connect()
    deaf.setblocking(False)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            deaf.send(control.encode_request(Op.STATUS, 1))
        except BlockingIOError:
            time.sleep(0.001)
        except OSError:
            break
    else:
        raise AssertionError("still served")
    assert zygote.status()["walls"]["seccomp"] is True


def as_cells_user(zygote: Zygote, packet: bytes) -> str:
    """Ask as the cells' user does; return the outcome's name."""

    def ask(_: socket.socket) -> str:
        with control.connect(zygote.place.run) as sock:
            answer = asked(zygote, sock, packet)
            return control.decode_reply(answer).outcome.name if answer else "hung up"

    return in_child(ask).word


@as_root
@pytest.mark.parametrize(
    ("packet", "outcome"),
    [
        (control.encode_request(Op.KILL, 1, bytes(16)), "DONE"),
        (control.encode_request(Op.STATUS, 1), "DONE"),
        (control.encode_request(Op.CREATE, 1, bytes(16), LATER), "hung up"),
        (control.encode_request(Op.OPEN, 1, bytes(16)), "hung up"),
        (control.encode_touch([bytes(16)]), "hung up"),
    ],
    ids=["kill", "status", "create", "open", "touch"],
)
def test_the_reapers_user_may_only_kill_and_ask_how_things_are(
    zygote: Zygote, packet: bytes, outcome: str
) -> None:
    assert as_cells_user(zygote, packet) == outcome
    assert not zygote.place.folder(bytes(16)).exists()


@as_root
def test_any_other_user_is_hung_up_on(zygote: Zygote) -> None:
    def ask(_: socket.socket) -> str:
        with control.connect(zygote.place.run) as sock:
            return repr(asked(zygote, sock, control.encode_request(Op.STATUS, 1)))

    before = CELL_USER.uid + 1 if CELL_USER.uid < 60_000 else 54_321

    def as_other(sock: socket.socket) -> str:
        return ask(sock)

    stranger = settings.User(before, before)
    pid_read, pid_write = socket.socketpair()
    with pid_read, pid_write:
        pid = os.fork()
        if pid == 0:
            try:
                stranger.become()
                pid_write.send(as_other(pid_write).encode())
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        pid_read.settimeout(5)
        assert pid_read.recv(100) == b"b''"
    assert "refused" in zygote.log()
