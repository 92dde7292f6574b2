"""The promise: the harness does not rot. Every row gives a number, every bar has its line.

It is the short form, with those peers that were fetched before. No number is judged: that is what
`make bench` is for, on a machine that does nothing else.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.bench.__main__ import main
from tests.bench.bars import BARS
from tests.bench.run import SHORT, Run
from tests.bench.workloads import SQLD, WALKIN, WORKLOADS
from tests.handles import ROOT

_LIFE = ("fork_1", "fork_9", "rewind_1", "rewind_4", "download", "upload")
_ALONE = ("create", "creation", "reopen", "cell", *_LIFE, "beside_bombs", "healthz", "bombs")


@pytest.mark.timeout(300)
def test_the_short_form_measures_every_row(tool: Callable[[str], str], tmp_path: Path) -> None:
    tool("wrk")
    assert main(["--short", "--offline", "--out", str(tmp_path)]) == 0
    raw = json.loads((tmp_path / "results.json").read_text())
    rows = {workload.row for workload in WORKLOADS} | {f"session_{n}" for n in SHORT.sessions}
    rows |= {*_ALONE, "crowd", "removal"} - raw["left_out"].keys()
    assert raw["faults"] == {}
    assert raw["found"].keys() == rows
    for row, by_peer in raw["found"].items():
        for who, (figures,) in by_peer.items():
            assert figures.get("errors", 0) == 0, (row, who)
            assert all(number >= 0 for number in figures.values()), (row, who)
            assert figures.get("rate", 1) > 0, (row, who)
        assert WALKIN in by_peer, row
    assert raw["found"]["crowd"][WALKIN][0]["count"] > 0

    page = (tmp_path / "results.md").read_text()
    for bar in BARS:
        assert f"| {bar.what} | {bar.limit} | " in page
    assert len(BARS) == len(re.findall("not judged|not measured", page)), page
    assert ElementTree.parse(tmp_path / "results.svg").getroot().tag.endswith("svg")


def _run(tmp_path: Path) -> Run:
    """A run in which sqld is absent and our calls of one row have failed."""
    run = Run(SHORT, tmp_path)
    run.absent[SQLD] = "its package is gone"
    figures = {"rate": 900.0, "p50_ms": 1.0, "errors": 0}
    run.attempt("select_32", WALKIN, lambda: figures)
    run.attempt("select_1", WALKIN, lambda: figures | {"errors": 3})
    return run


def test_whatever_is_missing_is_said_with_its_reason(tmp_path: Path) -> None:
    verdicts = {bar.what: bar.verdict(_run(tmp_path)) for bar in BARS}
    assert "sqld is absent (its package is gone)" in verdicts["`SELECT 1`, 32 connections: to sqld"]
    assert verdicts["`SELECT 1`, 1 connection, p50: to sqld's"] == "**not met**: 3 errors"


def test_the_readme_quotes_the_results_as_they_are() -> None:
    page = (ROOT / "tests/bench/results/results.md").read_text()
    quoted = (ROOT / "README.md").read_text().split("\n## How fast\n", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in quoted.splitlines() if line.startswith("|")]
    assert len(rows) == len(BARS) + 2
    assert all(row in page.splitlines() for row in rows)
    (date,) = re.findall(r"^- date: (.+)$", page, re.MULTILINE)
    assert f"`make bench` on {date}," in quoted
