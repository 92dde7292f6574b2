"""The reaper as a process: it removes what has expired, and stops when it is told to."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sandbox import clock
from sandbox.control import Op, Outcome
from sandbox.place import Place
from tests.handles import ROOT, is_running, wait_until
from tests.sandbox.handles import CELL_USER, Zygote, children_of, give_to_cells, new_id, traces

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start_reaper(folder: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def start(*before: str, **env: str) -> "subprocess.Popen[bytes]":
        with (folder / "reaper.log").open("ab") as log:
            process = subprocess.Popen(
                [*before, sys.executable, "-m", "reaper"],
                env={"PATH": os.environ["PATH"], "WALKIN_DATA_DIR": str(folder / "data"), **env},
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait(10)


def title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()


def log_of(folder: Path) -> str:
    return (folder / "reaper.log").read_text(errors="replace")


def make_due(folder: Path) -> None:
    """Leave a turn that is due, so that a sweep without a zygote says that it waits for one."""
    place = Place(folder / "data")
    place.prepare(CELL_USER.uid, CELL_USER.gid)
    clock.keep(place)
    turn = place.cells / "due" / "1" / new_id().hex()
    turn.parent.mkdir(mode=0o700)
    turn.touch()
    give_to_cells(turn.parent, turn)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_with_status_0(
    start_reaper: Start, folder: Path, number: signal.Signals
) -> None:
    make_due(folder)
    reaper = start_reaper()
    wait_until(lambda: "waiting for the zygote" in log_of(folder))
    assert title(reaper.pid) == "walkin: reaper"
    reaper.send_signal(number)
    assert reaper.wait(5) == 0


def test_it_runs_as_the_cells_user(start_reaper: Start, folder: Path) -> None:
    make_due(folder)
    reaper = start_reaper()
    wait_until(lambda: "waiting for the zygote" in log_of(folder))
    uid = CELL_USER.uid
    assert f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n" in Path(f"/proc/{reaper.pid}/status").read_text()


def test_wrong_settings_are_named_and_end_it_with_status_2(
    start_reaper: Start, folder: Path
) -> None:
    reaper = start_reaper(WALKIN_DATA_DIR="", WALKIN_CELL_USER="no-such-user")
    assert reaper.wait(10) == 2
    log = log_of(folder)
    assert "WALKIN_DATA_DIR=''" in log
    assert "WALKIN_CELL_USER='no-such-user'" in log
    assert "Traceback" not in log


def test_what_expires_is_gone_within_seconds_together_with_its_cell(
    start_reaper: Start, folder: Path
) -> None:
    with closing(Zygote(folder / "data", blank_cells=0)) as zygote:
        zygote.start()
        start_reaper()
        instance, line = zygote.create(ttl_s=1)
        other, _ = zygote.create()
        line.sql("CREATE TABLE t(a)")
        wait_until(lambda: not traces(zygote.place, instance), 6)
        assert line.next_frame() is None
        assert zygote.ask(Op.OPEN, instance)[0].outcome is Outcome.MISSING
        assert zygote.open(other).sql("SELECT 1").rows == [[1]]


def test_it_waits_for_a_zygote_that_is_away(start_reaper: Start, folder: Path) -> None:
    with closing(Zygote(folder / "data", blank_cells=0)) as zygote:
        zygote.start()
        instance, _ = zygote.create(ttl_s=1)
        os.kill(zygote.pid, signal.SIGKILL)
        assert zygote.process is not None
        zygote.process.wait(10)
        zygote._listener.close()
        reaper = start_reaper()
        wait_until(lambda: "waiting for the zygote" in log_of(folder), 8)
        assert zygote.place.folder(instance).exists()
        assert reaper.poll() is None


STARTER = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"


def test_it_stops_when_its_starter_is_gone(start_reaper: Start, folder: Path) -> None:
    make_due(folder)
    starter = start_reaper(sys.executable, "-c", STARTER)
    (reaper,) = wait_until(lambda: children_of(starter.pid))
    wait_until(lambda: "waiting for the zygote" in log_of(folder))
    starter.kill()
    wait_until(lambda: not is_running(reaper), 5)


def test_it_waits_for_folders_that_are_not_there_yet(start_reaper: Start, folder: Path) -> None:
    reaper = start_reaper()
    wait_until(lambda: is_running(reaper.pid))
    make_due(folder)
    wait_until(lambda: "waiting for the zygote" in log_of(folder))
    assert "sweep:" not in log_of(folder)
