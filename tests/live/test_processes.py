"""Who runs as what: titles, users, and the token keys in no process but the front desk's side."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.handles import Client, Service, open_folder, wait_until

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="other processes' memory and environment are for root to read"
)
KEY = "test-key-of-this-service-" + "0123456789abcdef" * 2
OLD_KEY = "an-older-key-of-this-service-" + "fedcba9876543210" * 2


class Keyed(NamedTuple):
    """A service with one live cell, and the keys that it signs with."""

    service: Service
    keys: list[str]


@pytest.fixture(scope="module", params=["given", "generated"])
def keyed(request: pytest.FixtureRequest) -> Iterator[Keyed]:
    with open_folder() as folder:
        given = {"token_keys": f"{OLD_KEY},{KEY}"} if request.param == "given" else {}
        service = Service(folder, **given).start()
        client = service.client()
        assert client.sql("CREATE TABLE kept(x); INSERT INTO kept VALUES (1)").status == 200
        wait_until(lambda: service.pids("blank cell"), 5, "a blank cell")
        keys = [OLD_KEY, KEY] if given else (folder / "token-keys").read_text().split()
        yield Keyed(service, keys)
        assert service.stop() == 0


def behind_the_wall(service: Service) -> dict[str, int]:
    """The processes that must not know a key, by title."""
    pids = {}
    for title in service.family():
        role = title.removeprefix("walkin: ")
        if role in ("zygote", "reaper", "blank cell") or role.startswith("cell "):
            pids[role] = service.pids(role)[0]
    assert len(pids) == 4
    return pids


def memory(pid: int) -> Iterator[bytes]:
    """All readable memory of a process, one mapping after the other."""
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", 0) as mem:
        for line in maps:
            span, rights, *_ = line.split()
            if rights.startswith("r") and not line.rstrip().endswith(("[vvar]", "[vsyscall]")):
                start, end = (int(number, 16) for number in span.split("-"))
                try:
                    mem.seek(start)
                    yield mem.read(end - start)
                except (OSError, OverflowError):
                    continue


def knows(pid: int, secrets: list[bytes]) -> bool:
    return any(secret in piece for piece in memory(pid) for secret in secrets)


def test_titles_tell_the_processes_apart(service: Service, tool: Callable[[str], str]) -> None:
    client = service.client()
    client.sql("SELECT 1")
    shown = subprocess.run(
        [tool("ps"), "-ww", "-e", "-o", "pid=,args="], capture_output=True, text=True, check=True
    ).stdout
    titles = {int(pid): title for pid, title in re.findall(r"^\s*(\d+) (.*)$", shown, re.MULTILINE)}
    assert service.process is not None
    assert titles[service.process.pid] == "walkin: serve"
    cell = f"walkin: cell {client.instance}"
    expected = [
        "walkin: zygote",
        "walkin: reaper",
        "walkin: front desk",
        "walkin: blank cell",
        cell,
    ]
    for title in expected:
        (*_, pid) = service.pids(title.removeprefix("walkin: "))
        assert titles[pid] == title
    assert all(title.startswith("walkin: ") for title in service.family())


@needs_root
def test_cells_zygote_and_reaper_run_as_another_user(service: Service) -> None:
    client = service.client()
    client.sql("SELECT 1")
    for pid in behind_the_wall_of(service, client):
        status = Path(f"/proc/{pid}/status").read_text()
        for name in ("Uid", "Gid"):
            (line,) = re.findall(rf"^{name}:\s+(.*)$", status, re.MULTILINE)
            assert "0" not in line.split(), f"{name} of {pid}: {line}"
        assert re.search(r"^Groups:\s*$", status, re.MULTILINE), "no groups of root's"
        assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
        assert re.search(r"^CapPrm:\s+0+$", status, re.MULTILINE)
    cell = Path(f"/proc/{service.cell(client)}/status").read_text()
    assert re.search(r"^NoNewPrivs:\s+1$", cell, re.MULTILINE)
    assert re.search(r"^Seccomp:\s+2$", cell, re.MULTILINE)


def behind_the_wall_of(service: Service, client: Client) -> list[int]:
    roles = ("zygote", "reaper", "blank cell", f"cell {client.instance}")
    return [pid for role in roles for pid in service.pids(role)]


@needs_root
def test_files_of_a_database_are_the_cells_users_alone(service: Service) -> None:
    client = service.client()
    client.sql("CREATE TABLE t(x)")
    status = Path(f"/proc/{service.cell(client)}/status").read_text()
    uid = int(re.findall(r"^Uid:\s+(\d+)", status, re.MULTILINE)[0])
    (folder,) = service.data_dir.glob(f"cells/instances/*/{client.instance}")
    for path in (service.data_dir / "cells", folder, *folder.iterdir()):
        found = path.stat()
        assert (found.st_uid, found.st_mode & 0o077) == (uid, 0), path
    key = (service.data_dir / "token-keys").stat()
    assert (key.st_uid, key.st_mode & 0o777) == (0, 0o600)


@needs_root
def test_keys_are_not_in_the_environment_behind_the_wall(
    keyed: Keyed,
) -> None:
    service, keys = keyed
    for role, pid in behind_the_wall(service).items():
        environ = Path(f"/proc/{pid}/environ").read_bytes()
        assert not any(key.encode() in environ for key in keys), role
        assert b"TOKEN_KEYS" not in environ, role


@needs_root
def test_keys_are_not_in_the_memory_behind_the_wall(keyed: Keyed) -> None:
    service, keys = keyed
    secrets = [key.encode() for key in keys]
    (front,) = service.pids("front desk")
    assert knows(front, secrets), "the search finds a key where there is one"
    for role, pid in behind_the_wall(service).items():
        assert not knows(pid, secrets), role


@needs_root
def test_what_is_open_behind_the_wall_is_known(keyed: Keyed) -> None:
    service, _ = keyed
    key_file = service.data_dir / "token-keys"
    port = int(service.url.rpartition(":")[2])
    listener = listening_inode(port)
    for role, pid in behind_the_wall(service).items():
        opened = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
        assert str(key_file) not in opened, role
        assert f"socket:[{listener}]" not in opened, f"{role} has the HTTP socket"
        if role.startswith("cell "):
            files = {Path(name).name for name in opened if name.startswith(str(service.data_dir))}
            assert files == {"main.db", "main.db-wal"}
            others = [name for name in opened if not name.startswith(str(service.data_dir))]
            assert sorted(name.partition(":")[0] for name in others) == [
                *["/dev/null"] * 3,
                *["socket"] * 2,
            ], "its line and the zygote's"
        if role == "blank cell":
            assert sorted(name.partition(":")[0] for name in opened) == [
                *["/dev/null"] * 3,
                "anon_inode",
                "socket",
            ], "its jail's ruleset, still empty, and the zygote's line"
            assert "anon_inode:[landlock-ruleset]" in opened


def listening_inode(port: int) -> str:
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
            return fields[9]
    raise AssertionError(f"nobody listens on {port}")


def test_generated_key_lasts_and_a_given_one_is_used(
    make_service: Callable[..., Service],
) -> None:
    service = make_service()
    client = service.client()
    client.sql("SELECT 1")
    key = (service.data_dir / "token-keys").read_text()
    token = client.token
    assert service.stop() == 0
    service.start()
    assert (service.data_dir / "token-keys").read_text() == key
    assert service.client(token).sql("SELECT 1").status == 200
    assert service.stop() == 0
    service.env["WALKIN_TOKEN_KEYS"] = KEY
    service.start()
    assert service.client(token).sql("SELECT 1").code == "instance_not_found", "another key"
    service.stop()
    service.env["WALKIN_TOKEN_KEYS"] = f"{key.strip()},{KEY}"
    service.start()
    assert service.client(token).sql("SELECT 1").status == 200, "old keys still verify"


def test_status_of_the_walls_is_in_the_greeting(service: Service) -> None:
    (greeting,) = re.findall(r"^walkin listens on .*$", service.log(), re.MULTILINE)
    assert re.search(r"Landlock ABI \d+, seccomp, \d+ rlimits, cells as user \d+", greeting)
    assert json.loads(service.client().get("/healthz").text) == {"status": "ok"}
    wait_until(lambda: service.pids("blank cell"), 5, "cells are kept ready")
