"""The promise: SECURITY.md is true where a machine can tell: files, tests, numbers."""

import re
import resource

from sandbox import jail, limits, policy, shelf
from tests.handles import ROOT

PAGE = (ROOT / "SECURITY.md").read_text()
WALLS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.partition("## The walls")[2].partition("\n\nNo wall")[0].splitlines()
    if line.startswith("|") and not line.startswith(("| wall", "|---"))
]


def test_every_file_it_names_is_there() -> None:
    named = set(re.findall(r"`((?:walkin|sandbox|reaper|tests)/[\w/]+\.py)`", PAGE))
    assert len(named) > 15
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_every_wall_is_shown_by_a_test() -> None:
    assert len(WALLS) == 15
    for wall, stops, leaves, shown in WALLS:
        assert re.fullmatch(r"`tests/[\w/]+\.py`", shown), wall
        assert stops, wall
        assert leaves, wall


def test_its_numbers_are_those_of_the_code() -> None:
    for words in (
        f"Landlock, ABI {jail.LEAST_LANDLOCK_ABI} or newer",
        f"{policy.HEAP_BYTES >> 20} MiB of heap",
        f"{policy.LIMITS['LENGTH'] >> 20} MiB a value",
        f"{limits.RLIMITS[resource.RLIMIT_AS] >> 20} MiB of address space",
        f"{limits.RLIMITS[resource.RLIMIT_FSIZE] >> 20} MiB a file",
        f"{limits.RLIMITS[resource.RLIMIT_CPU]} s of processor time",
        f"{2 * limits.RLIMITS[resource.RLIMIT_FSIZE] >> 20} MiB and"
        f" {shelf.MOST_BYTES >> 20} MB of checkpoints",
    ):
        assert words in PAGE, words


def test_the_readme_leads_to_it() -> None:
    assert "(SECURITY.md)" in (ROOT / "README.md").read_text()
