"""The promise: no bytes break the frame codec, no text breaks the blocklist or gets past it.

atheris looks for them, led by which branches its inputs reach. It never comes back, so each target
(targets.py) has a process of its own.
"""

import importlib.util
import os
import re
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import clock
from tests.handles import CI, ROOT

#: A quarter of the time for each: `make test` has others to run.
SHARE_S = max(5, round(clock.FUZZ_S / 4))
_SEED = os.environ.get("FUZZ_SEED") or str(1 + secrets.randbits(31))


@pytest.fixture(autouse=True)
def _atheris() -> None:
    if importlib.util.find_spec("atheris") is None:
        # Its wheels are for x86-64 alone.
        (pytest.fail if CI else pytest.skip)("atheris is not installed: no wheel for this machine")


def fuzz(target: str, folder: Path, seconds: int) -> tuple[int, str]:
    """Run one target and return its exit status and what it printed."""
    corpus = folder / "corpus"
    corpus.mkdir()
    options = {
        "max_total_time": seconds,
        "seed": _SEED,
        # As long as a request body may be; one that takes this long has no end.
        "max_len": 8192,
        "timeout": 10,
        "rss_limit_mb": 1024,
        "print_final_stats": 1,
        "artifact_prefix": f"{folder}/",
    }
    run = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.targets", target, str(corpus)]
        + [f"-{name}={value}" for name, value in options.items()],
        cwd=ROOT,
        capture_output=True,
        timeout=seconds + 60,
        check=False,
    )
    found = [f"{file.name}: {file.read_bytes()!r}" for file in folder.iterdir() if file.is_file()]
    lines = (run.stdout + run.stderr).decode(errors="replace").splitlines()
    # Without the progress that it reports: what remains is what it found.
    shown = "\n".join(line[:2000] for line in lines if not line.startswith("#"))
    return run.returncode, "\n".join([shown, f"FUZZ_SEED={_SEED}", *found])


@clock.timeout
@pytest.mark.parametrize("target", ["frames", "blocklist"])
def test_nothing_is_found(target: str, tmp_path: Path) -> None:
    status, said = fuzz(target, tmp_path, SHARE_S)
    assert status == 0, said
    executed = int(re.findall(r"number_of_executed_units: (\d+)", said)[0])
    print(f"{target}: {executed} inputs in {SHARE_S} s")
    # Thousands a second on an idle machine.
    assert executed > 200 * SHARE_S, said


@clock.timeout
def test_a_planted_fault_behind_several_branches_is_found(tmp_path: Path) -> None:
    status, said = fuzz("planted", tmp_path, 60)
    assert status != 0, said
    assert "IndexError: planted" in said
    assert "crash-" in said
