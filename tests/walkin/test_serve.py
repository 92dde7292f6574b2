"""The supervisor: reaches itself, and shares its folder with nobody."""

import socket
import struct
import subprocess
import sys
from collections.abc import Callable

import pytest

from sandbox import control
from tests.handles import ROOT, Service
from walkin import serve


@pytest.mark.parametrize(
    ("bound", "reached"),
    [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "127.0.0.1"), ("::", "::1"), ("::1", "::1")],
)
def test_a_listener_on_every_address_is_reached_by_loopback(bound: str, reached: str) -> None:
    family = socket.AF_INET6 if ":" in bound else socket.AF_INET
    with socket.socket(family) as listener:
        try:
            listener.bind((bound, 0))
        except OSError:
            pytest.skip(f"this machine has no {bound}")
        assert serve._reachable(listener) == (reached, listener.getsockname()[1])


# --- two in one folder ---


def second(service: Service, port: str) -> tuple[int | None, str]:
    """Another `walkin serve` on the same data folder: its status, None if it started, its words."""
    command = [sys.executable, "-u", "-m", "walkin.cli", "serve", "--port", port]
    with subprocess.Popen(
        command, env=service.env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout
        said = process.stdout.readline().decode()
        if "listens" not in said:
            return process.wait(10), said
        process.terminate()
        return None, said


def is_reached(service: Service) -> bool:
    """Whether the control socket in the folder is the one that the service listens on."""
    with control.connect(service.data_dir / "run") as sock:
        peer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    assert service.process
    return bool(struct.unpack("iII", peer)[0] == service.process.pid)


def test_a_second_service_that_cannot_start_does_not_hurt_the_first(
    make_service: Callable[..., Service],
) -> None:
    service = make_service()
    assert is_reached(service)
    status, said = second(service, service.url.rpartition(":")[2])
    assert status == 1
    assert "walkin cannot start" in said
    assert is_reached(service)


def test_a_second_service_in_the_same_folder_is_refused(
    make_service: Callable[..., Service],
) -> None:
    service = make_service()
    assert is_reached(service)
    status, said = second(service, "0")
    assert status == 1, said
    assert "walkin cannot start" in said
    assert is_reached(service)
