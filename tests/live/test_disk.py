"""A disk that is full, without inodes or closed to writing: told, nothing lost, and it passes."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.handles import Client, Service, open_folder, wait_until
from tests.machine import small_disk


class Node:
    """A service whose data lies on a small file system of its own."""

    def __init__(self, disk: Path, service: Service) -> None:
        self.disk = disk
        self.service = service

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        ballast = self.disk / "ballast"
        try:
            with ballast.open("wb", buffering=0) as file:
                for size in (1 << 20, 4096):
                    with contextlib.suppress(OSError):
                        while True:
                            file.write(b"x" * size)
            yield
        finally:
            ballast.unlink()

    @contextlib.contextmanager
    def without_inodes(self) -> Iterator[None]:
        folder = self.disk / "inodes"
        folder.mkdir()
        try:
            with contextlib.suppress(OSError):
                for number in range(1_000_000):
                    (folder / str(number)).touch()
            yield
        finally:
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()


@pytest.fixture
def node() -> Iterator[Node]:
    with open_folder() as folder, small_disk(folder, "24m", 3000) as disk:
        if disk is None:
            pytest.skip("nothing can be mounted here")
        data_dir = disk / "data"
        data_dir.mkdir(mode=0o755)
        service = Service(data_dir, creations_per_min=0, requests_per_min=0)
        service._log = folder / "log"
        service.start()
        try:
            yield Node(disk, service)
            assert "Traceback" not in service.log()
        finally:
            service.stop()


def fill(client: Client, count: int = 20) -> Client:
    client.sql("CREATE TABLE kept(x, y)")
    for number in range(count):
        assert client.sql("INSERT INTO kept VALUES (?, ?)", [number, "y" * 500]).status == 200
    return client


def is_whole(client: Client, count: int = 20) -> bool:
    return client.sql("SELECT count(*), count(DISTINCT x) FROM kept WHERE x < 1000").rows == [
        [count, count]
    ] and client.sql("PRAGMA integrity_check").rows == [["ok"]]


def until_ready(client: Client) -> None:
    wait_until(lambda: client.get("/readyz").status == 200, 10, "ready")


def test_a_full_disk_is_told_and_passes(node: Node) -> None:
    client = fill(node.service.client())
    until_ready(client)
    cell = node.service.cell(client)
    with node.full():
        answers = [client.sql("INSERT INTO kept VALUES (1000, zeroblob(60000))") for _ in range(4)]
        refused = [answer for answer in answers if answer.status != 200]
        assert refused, "the disk is full"
        assert {(answer.status, answer.code) for answer in refused} == {(507, "quota_exceeded")}
        assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
        assert is_whole(client), "what is there can be read"
        newcomer = node.service.client().sql("CREATE TABLE t(x)")
        assert (newcomer.status, newcomer.code) == (503, "busy")
        assert int(newcomer.headers["retry-after"]) > 0
        assert "x-walkin-session" not in newcomer.headers
        assert client.get("/readyz").json["parts"]["disk"] == "is full"
        assert client.get("/healthz").status == 200
    until_ready(client)
    assert client.sql("INSERT INTO kept VALUES (1000, zeroblob(60000))").status == 200
    assert is_whole(client)
    assert node.service.cell(client) == cell, "its cell has lived through it"
    assert node.service.client().sql("CREATE TABLE t(x)").status == 200


def test_a_full_disk_again_and_again_leaves_nothing_behind(node: Node) -> None:
    client = fill(node.service.client())
    for _ in range(3):
        with node.full():
            assert node.service.client().sql("SELECT 1").status == 503
        assert node.service.client().sql("SELECT 1").status == 200
    assert is_whole(client)


def test_no_inodes_are_told_and_pass(node: Node) -> None:
    client = fill(node.service.client())
    until_ready(client)
    with node.without_inodes():
        assert node.service.client().sql("SELECT 1").status == 503
        assert client.get("/readyz").json["parts"]["disk"] == "has no room for further files"
        assert client.sql("INSERT INTO kept VALUES (1000, 'y')").status == 200
        assert is_whole(client)
    until_ready(client)
    assert node.service.client().sql("SELECT 1").status == 200


def test_a_disk_closed_to_writing_is_told_and_passes(node: Node) -> None:
    client = fill(node.service.client())
    until_ready(client)

    def remount(how: str) -> bool:
        command = ["mount", "-o", f"remount,{how}", str(node.disk)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    # Only what is not open for writing can be closed to it: the cell must have gone to rest.
    node.service.signal("zygote", 15)
    wait_until(lambda: not node.service.pids(f"cell {client.instance}"), 10, "the cell is gone")
    if not remount("ro"):
        pytest.skip("it is in use")
    try:
        assert node.service.client().sql("SELECT 1").status == 503
        assert client.get("/readyz").json["parts"]["disk"] == "is read-only"
        refused = client.sql("SELECT count(*) FROM kept")
        assert refused.status in (200, 503)
    finally:
        assert remount("rw")
    until_ready(client)
    assert is_whole(client)
    assert node.service.client().sql("SELECT 1").status == 200
