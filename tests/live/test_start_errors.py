"""What cannot start says why in one line, ends with a status that is not 0, and leaves nothing."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.handles import ROOT, Service, wait_for_end

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root starts cells as another user")


def refusal(data_dir: Path, pythonpath: str = "", **settings: object) -> tuple[int, str]:
    """Start a service that cannot start; return its exit status and its one line.

    Every process of a service but the cells has the same standard error, and the cells end with
    the zygote: when it is closed, none is left.
    """
    environ = {name: text for name, text in os.environ.items() if not name.startswith("WALKIN_")}
    path = os.pathsep.join(filter(None, [pythonpath, environ.get("PYTHONPATH")]))
    chosen = {"port": 0, "data_dir": data_dir} | settings
    with subprocess.Popen(
        [sys.executable, "-m", "walkin.cli", "serve"],
        env=environ
        | ({"PYTHONPATH": path} if path else {})
        | {f"WALKIN_{name.upper()}": str(value) for name, value in chosen.items()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        try:
            greeting, errors = process.communicate(timeout=15)
        except subprocess.TimeoutExpired:
            process.terminate()
            raise
    assert process.returncode > 0
    assert greeting == ""
    assert "Traceback" not in errors, errors
    (line,) = errors.splitlines()
    return process.returncode, line


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock.getsockname()[1]


def test_port_that_is_taken_is_named(folder: Path, taken_port: int) -> None:
    status, line = refusal(folder, port=taken_port)
    assert status == 1
    assert line.startswith("walkin cannot start: ")
    assert str(taken_port) in line
    assert "in use" in line


def test_host_that_is_not_there_is_named(folder: Path) -> None:
    status, line = refusal(folder, host="192.0.2.1")
    assert status == 1
    assert line.startswith("walkin cannot start: ")
    assert "192.0.2.1" in line


def test_second_service_on_the_same_port_and_folder_does_not_harm_the_first(
    make_service: Callable[..., Service],
) -> None:
    first = make_service()
    client = first.client()
    client.sql("CREATE TABLE kept(x); INSERT INTO kept VALUES (1)")
    refusal(first.data_dir, port=first.url.rpartition(":")[2])
    assert goes_on(first, client.token)


def test_data_folder_that_another_service_uses_is_refused(
    make_service: Callable[..., Service],
) -> None:
    first = make_service()
    client = first.client()
    client.sql("CREATE TABLE kept(x); INSERT INTO kept VALUES (1)")
    _, line = refusal(first.data_dir)
    assert line.startswith("walkin cannot start: ")
    assert str(first.data_dir) in line
    assert goes_on(first, client.token)


def goes_on(service: Service, token: str | None) -> bool:
    """The service answers, also after its zygote and its front desk had to be started again."""
    for role in ("zygote", "front desk"):
        assert service.client(token).sql("SELECT x FROM kept").rows == [[1]]
        wait_for_end(service.signal(role, signal.SIGKILL))
    return service.client(token).sql("SELECT x FROM kept").rows == [[1]]


@needs_root
def test_data_folder_out_of_the_cells_reach_is_named(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    _, line = refusal(closed / "data")
    assert line.startswith("walkin cannot start: user ")
    assert str(closed / "data") in line
    assert "cannot reach" in line


def test_data_folder_that_is_a_file_is_named(folder: Path) -> None:
    file = folder / "data"
    file.write_text("not a folder")
    status, line = refusal(file)
    assert status == 1
    assert line.startswith("walkin cannot start: ")
    assert str(file) in line
    assert file.read_text() == "not a folder"


def test_missing_key_file_is_named(folder: Path) -> None:
    status, line = refusal(folder, token_keys_file=folder / "nowhere")
    assert status == 1
    assert line.startswith("walkin cannot start: ")
    assert str(folder / "nowhere") in line


def test_generated_key_that_others_can_read_is_refused(folder: Path) -> None:
    (folder / "token-keys").write_text("k" * 64 + "\n")
    (folder / "token-keys").chmod(0o644)
    status, line = refusal(folder)
    assert status == 1
    assert "can be read by other users" in line
    assert "kkkk" not in line


def test_wrong_setting_is_named_and_a_secret_is_not_shown(folder: Path) -> None:
    assert refusal(folder, ttl_s="ten")[0] == 2
    assert "WALKIN_TTL_S='ten'" in refusal(folder, ttl_s="ten")[1]
    _, line = refusal(folder, token_keys="short-and-secret")
    assert "WALKIN_TOKEN_KEYS" in line
    assert "short-and-secret" not in line


#: A kernel as it may be: what landlock_abi() finds there.
OLDER_KERNEL = "import sandbox.kernel as kernel; kernel.landlock_abi = lambda: {abi}; "


@pytest.mark.parametrize(
    ("abi", "words"), [(0, "does not have it"), (5, "has ABI 5")], ids=["none", "too old"]
)
def test_zygote_without_landlock_refuses(folder: Path, abi: int, words: str) -> None:
    code = OLDER_KERNEL.format(abi=abi) + (
        "import sys; from sandbox.__main__ import main; sys.argv = ['sandbox']; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "WALKIN_DATA_DIR": str(folder)},
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=30,
        check=False,
    )
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert line.startswith("walkin cannot start: Landlock ABI 6 (Linux 6.12) is required")
    assert words in line
    assert not (folder / "cells").exists(), "nothing was made"


def test_service_without_landlock_refuses(folder: Path) -> None:
    hook = folder / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        "import sys\nif 'sandbox' in sys.orig_argv: " + OLDER_KERNEL.format(abi=0)
    )
    _, line = refusal(folder / "data", os.pathsep.join([str(hook), str(ROOT)]))
    assert line.startswith("walkin cannot start: Landlock ABI 6 (Linux 6.12) is required")
    assert "walkin does not run SQL without it" in line
