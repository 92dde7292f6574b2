"""The promise: README's tables of settings and error codes are the code's own."""

import re

from sandbox.codes import CODES
from tests.handles import ROOT
from walkin.settings import FRONT_ROWS, ROWS, Settings

_README = (ROOT / "README.md").read_text()


def _table(title: str) -> list[list[str]]:
    """The cells of the first table under a heading."""
    section = _README.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_every_setting_stands_in_the_readme_as_it_is() -> None:
    expected = [
        [
            f"`{row.variable}`",
            "—" if row.secret else f"`{row.flag}`",
            f"`{row.default}`" if row.default else "—",
            row.help,
        ]
        for row in ROWS
    ]
    assert _table("Settings") == expected


def test_every_row_is_a_field_of_the_settings() -> None:
    assert [row.name for row in ROWS] == list(Settings.__dataclass_fields__)
    assert ROWS[: len(FRONT_ROWS)] == FRONT_ROWS


def test_every_duration_and_size_has_its_unit_in_its_name() -> None:
    counts = {"port", "metrics_port", "workers", "blank_cells", "max_live_cells", "max_connections"}
    for row in ROWS:
        if row.default.isdigit() and row.name not in counts:
            assert re.search(r"_(s|ms|bytes|per_min)$", row.name), row.name


def test_every_error_code_stands_in_the_readme_as_it_is() -> None:
    expected = [
        [f"`{row.name}`", str(row.status), f"`{row.begins}`", row.when] for row in CODES.values()
    ]
    assert _table("Errors") == expected
