"""The sign of life: systemd's datagrams, to whatever address is given, and never a fault."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def ear(request: pytest.FixtureRequest, folder: Path) -> Iterator[tuple[socket.socket, str]]:
    address = str(folder / "notify") if request.param == "path" else f"@{folder}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.bind(address.replace("@", "\0", 1))
        yield sock, address


def test_every_word_arrives(ear: tuple[socket.socket, str]) -> None:
    sock, address = ear
    notifier = Notifier({"NOTIFY_SOCKET": address})
    notifier.ready()
    notifier.alive()
    notifier.stopping()
    assert [sock.recv(100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"STOPPING=1"]


def test_a_quick_loop_says_little(ear: tuple[socket.socket, str]) -> None:
    sock, address = ear
    notifier = Notifier({"NOTIFY_SOCKET": address})
    for _ in range(1000):
        notifier.alive()
    assert sock.recv(100) == b"WATCHDOG=1"
    sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        sock.recv(100)


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nowhere/x"}])
def test_where_nobody_listens_nothing_is_said(environ: dict[str, str]) -> None:
    notifier = Notifier(environ)
    notifier.ready()
    notifier.alive()
    notifier.stopping()


def test_an_ear_that_is_full_is_not_waited_for(ear: tuple[socket.socket, str]) -> None:
    _, address = ear
    notifier = Notifier({"NOTIFY_SOCKET": address})
    for _ in range(1000):
        notifier.ready()
