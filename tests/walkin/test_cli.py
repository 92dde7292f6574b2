"""The command line: what it says before anything is started."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from sandbox.settings import Row
from tests.handles import ROOT
from walkin.cli import serve
from walkin.settings import ROWS

Walkin = Callable[..., subprocess.CompletedProcess[str]]

#: A mistake that ends `walkin serve` before it begins.
MISTAKE = {"WALKIN_PORT": "none"}


@pytest.fixture
def walkin(tmp_path: Path) -> Walkin:
    """The command with some arguments and variables, in a folder of the test's own."""
    clean = {name: text for name, text in os.environ.items() if not name.startswith("WALKIN_")}

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "walkin.cli", *arguments],
            env={**clean, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **variables},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    return run


def test_every_mistake_is_printed_and_the_status_is_2(walkin: Walkin) -> None:
    done = walkin(
        "serve",
        WALKIN_PORT="none",
        WALKIN_TTL_S="0",
        WALKIN_TRUSTED_PROXIES="10.0.0.1/8",
        WALKIN_WORKERS="0",
    )
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    for name in ("PORT", "TTL_S", "TRUSTED_PROXIES", "WORKERS"):
        assert [line for line in lines if line.startswith(f"WALKIN_{name}=")], name
    assert len(lines) == 4


def test_nothing_is_made_when_there_is_a_mistake(walkin: Walkin, tmp_path: Path) -> None:
    done = walkin("serve", **MISTAKE)
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_secret_with_a_mistake_is_not_printed(walkin: Walkin) -> None:
    done = walkin("serve", WALKIN_TOKEN_KEYS="hunter2", WALKIN_RATE_LIMIT_STORE="hunter2")
    assert done.returncode == 2
    assert "hunter2" not in done.stderr + done.stdout


def test_a_variable_that_is_no_setting_is_warned_about(walkin: Walkin) -> None:
    done = walkin("serve", **MISTAKE, WALKIN_TTL="60", WALKIN_PROT="80")
    assert "WALKIN_TTL is not a setting of walkin" in done.stderr
    assert "WALKIN_PROT is not a setting of walkin" in done.stderr


def test_a_variable_of_somebody_else_is_not(walkin: Walkin) -> None:
    assert "TTL" not in walkin("serve", **MISTAKE, TTL="60", MY_WALKIN_TTL="60").stderr


def test_a_flag_goes_before_its_variable(walkin: Walkin) -> None:
    done = walkin("serve", "--ttl-s", "nine", WALKIN_TTL_S="8", **MISTAKE)
    assert "WALKIN_TTL_S='nine'" in done.stderr


@pytest.mark.parametrize("row", [row for row in ROWS if not row.secret], ids=lambda row: row.name)
def test_every_setting_that_is_no_secret_has_a_flag(row: Row) -> None:
    assert row.flag in {flag for option in serve.params for flag in option.opts}


def test_help_lists_every_setting_that_is_no_secret_with_its_default(walkin: Walkin) -> None:
    done = walkin("serve", "--help")
    assert done.returncode == 0
    words = set(done.stdout.replace(",", " ").split())
    shown = [row for row in ROWS if not row.secret]
    assert [row.flag for row in shown if row.flag not in words] == []
    assert [row.variable for row in shown if row.variable not in words] == []
    assert [
        row.name for row in shown if row.default and f"[{row.default}]" not in done.stdout
    ] == []


def test_help_lists_no_secret(walkin: Walkin) -> None:
    words = walkin("serve", "--help").stdout.split()
    assert [row.flag for row in ROWS if row.secret and row.flag in words] == []


def test_a_secret_has_no_flag(walkin: Walkin) -> None:
    done = walkin("serve", "--token-keys", "k" * 40)
    assert done.returncode == 2
    assert "No such option" in done.stderr
    assert "k" * 40 not in done.stderr


def test_the_version_is_the_packages(walkin: Walkin) -> None:
    done = walkin("--version")
    assert done.returncode == 0
    assert done.stdout == f"walkin, version {version('walkin')}\n"


def test_a_command_that_is_none_is_refused(walkin: Walkin) -> None:
    done = walkin("server")
    assert done.returncode == 2
    assert "No such command" in done.stderr


def test_a_port_that_is_taken_is_said_in_one_line(walkin: Walkin) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = walkin("serve", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert done.stderr.startswith("walkin cannot start: ")
    assert len(done.stderr.splitlines()) == 1
