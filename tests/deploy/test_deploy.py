"""What an operator installs: units that systemd understands and rates, settings that exist."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox import settings as sandbox_settings
from tests.handles import ROOT
from walkin.settings import ROWS, from_environ

DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service")) + sorted(
    (DEPLOY / "systemd").glob("*.socket")
)
SERVICES = [unit for unit in UNITS if unit.suffix == ".service"]
#: systemd's own scale, in tenths: 2.0.
MOST_EXPOSED = 20


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units as they are installed, but for where Python is and what only a server has."""
    for unit in UNITS:
        text = unit.read_text().replace("/opt/walkin/bin/python", sys.executable)
        (tmp_path / unit.name).write_text(text)
    return tmp_path


def test_systemd_finds_nothing_wrong_with_the_units(
    tool: Callable[[str], str], units: Path
) -> None:
    analyze = tool("systemd-analyze")
    done = subprocess.run(
        [analyze, "verify", "--man=no", "--recursive-errors=no", *map(str, units.iterdir())],
        capture_output=True,
        text=True,
        env={"SYSTEMD_UNIT_PATH": f"{units}:"},
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if "walkin" in line]
    assert ours == []
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("service", SERVICES, ids=lambda unit: unit.stem)
def test_systemd_rates_each_service_as_safe(
    tool: Callable[[str], str], units: Path, service: Path
) -> None:
    analyze = tool("systemd-analyze")
    done = subprocess.run(
        [
            *(analyze, "security", "--offline=true", "--no-pager"),
            *(f"--threshold={MOST_EXPOSED}", str(units / service.name)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    (level,) = re.findall(r"Overall exposure level for \S+: (\d+\.\d)", done.stdout)
    assert float(level) <= MOST_EXPOSED / 10, done.stdout
    assert done.returncode == 0, done.stdout


def test_each_program_has_a_user_of_its_own_and_a_bound_on_its_memory() -> None:
    users = {}
    for service in SERVICES:
        lines = dict(line.split("=", 1) for line in service.read_text().splitlines() if "=" in line)
        users[service.stem] = lines["User"]
        assert lines["Type"] == "notify"
        assert lines["WatchdogSec"]
        assert lines["MemoryMax"]
        assert lines["TasksMax"]
        assert lines["NoNewPrivileges"] == "yes"
    assert users == {
        "walkin-front": "walkin-front",
        "walkin-reaper": "walkin-reaper",
        "walkin-zygote": "walkin-cells",
    }
    made = (DEPLOY / "systemd" / "walkin.sysusers.conf").read_text()
    assert all(f"u {user} " in made for user in users.values())


def test_every_setting_that_is_named_exists() -> None:
    known = {row.variable for row in ROWS}
    for file in sorted(DEPLOY.rglob("*")):
        if file.is_file():
            named = set(re.findall(r"WALKIN_[A-Z_]+", file.read_text()))
            assert named <= known, file.name


def test_the_settings_file_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (DEPLOY / "walkin.env").read_text().splitlines()
    environ = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    # The users are those of a server; here it is enough that they are asked for.
    monkeypatch.setattr(
        sandbox_settings, "_look_up", lambda _: sandbox_settings.User(65_534, 65_534)
    )
    chosen = from_environ(environ)
    assert str(chosen.data_dir) == "/var/lib/walkin"
    assert chosen.log_format == "json"
    assert len(chosen.trusted_proxies) == 2


def test_every_file_that_the_readme_names_is_there() -> None:
    text = (DEPLOY / "README.md").read_text()
    named = set(re.findall(r"deploy/[\w./*-]+\w", text))
    assert len(named) > 4
    for name in named:
        assert list(ROOT.glob(name)), name
    for unit in UNITS:
        assert unit.stem in text, unit.name


def test_what_the_image_copies_is_there() -> None:
    for line in (DEPLOY / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY"):
            for name in line.split()[1:-1]:
                assert (ROOT / name).exists(), name
