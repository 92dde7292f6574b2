"""The report: what a run found as a page, a picture and raw numbers."""

import dataclasses
import json
from pathlib import Path

from tests.bench import picture
from tests.bench.bars import BARS
from tests.bench.peers import Peer
from tests.bench.run import Run
from tests.bench.workloads import CREATIONS, EVERYBODY, SESSIONS, TWO, WALKIN, WORKLOADS

_COLUMNS = (WALKIN, TWO, *EVERYBODY[1:])
#: Rows of walkin alone: what stands in which row, by which name.
_ALONE = {
    "creation": "create + CREATE TABLE, one at a time",
    "reopen": "first call on a database whose cell was given up",
    "cell": "a live cell",
    "fork_1": "a copy of 1 MB",
    "fork_9": "a copy of 9 MB",
    "rewind_1": "1 MB: kept, changed, gone back to, kept no longer (four calls)",
    "rewind_4": "4 MB: the same",
    "download": "`GET /database`, 9 MB",
    "upload": "`PUT /database`, 9 MB",
    "beside_bombs": "`SELECT 1` beside 16 CPU bombs",
    "healthz": "`/healthz` beside 16 CPU bombs",
    "bombs": "the bombs themselves",
    "crowd": "many databases alive at once, 8 connections making them",
    "removal": "their removal, and `SELECT 1` on a live one meanwhile",
}
#: How a number of theirs is said.
_SAID = {
    "count": "{:,.0f} databases",
    "wanted": "of {:,.0f} wanted",
    "cells": "median of {:.0f}",
    "pss_mb": "{:.2f} MB private (PSS)",
    "rate": "{:,.0f}/s",
    "mb_per_s": "{:,.0f} MB/s",
    **{f"p{at}_ms": f"p{at} {{:.2f}} ms" for at in (50, 90, 99)},
    "grown_mb": "processes grown by {:.1f} MB",
    "disk_kb": "{:.1f} KB on disk each",
    "removed_per_s": "{:,.0f} databases removed a second",
    "took_s": "for {:.1f} s",
    "left": "{:,.0f} left then",
    "calls": "{:,.0f} calls",
    "timeouts": "{:,.0f} of them ended by the clock",
    "server_errors": "{:.0f} answers of 5xx",
}
_HOW = """\
Everything runs on one machine at the same time: servers, load generator and, at rest, the crowd of
databases. Each number is the median of {rounds} rounds of {seconds} s; rounds go around the peers.
One statement again and again is asked by wrk (one thread, so many connections); what comes in
steps, by callers in Python, whose own cost is the same for all and is part of the number. Latencies
are those of a caller that asks again as soon as it is answered. An answer other than 2xx, or an
INSERT whose row is not there afterwards, makes a row fail. Memory of processes is what no file
backs, at its most; disk is what du(1) counts of databases at rest. The reaper is held until the
last of the crowd has expired; who asks `SELECT 1` meanwhile pauses for 5 ms after each answer."""


def titles(run: Run) -> dict[str, str]:
    """The rows in which peers stand beside each other."""
    named = {workload.row: workload.title for workload in WORKLOADS} | {"create": CREATIONS}
    return named | {f"session_{n}": SESSIONS.format(n) for n in run.size.sessions}


def bar_lines(run: Run) -> list[str]:
    """A line for each bar: what was wanted, what was reached, the verdict."""
    return [f"| {bar.what} | {bar.limit} | {bar.shown(run)} | {bar.verdict(run)} |" for bar in BARS]


def page(run: Run, peers: list[Peer], machine: dict[str, str]) -> str:
    """The whole of it as Markdown."""
    lines = ["# What was measured", ""]
    lines += [f"- {name}: {text}" for name, text in machine.items()]
    lines += ["", "![Throughput of each peer in units of walkin's](results.svg)", ""]
    lines += ["## Bars", "", "| what | bar | reached | verdict |", "|---|---|---|---|"]
    lines += [*bar_lines(run), "", "## Side by side", "", "Rate, and p50 / p90 / p99 in ms.", ""]
    lines += ["| | " + " | ".join(_COLUMNS) + " |", "|---" * (len(_COLUMNS) + 1) + "|"]
    for row, title in titles(run).items():
        cells = [_cell(run, row, who) for who in _COLUMNS]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    lines += ["", "## walkin alone", "", "| what | found |", "|---|---|"]
    lines += [f"| {title} | {_alone(run, row)} |" for row, title in _ALONE.items()]
    lines += ["", "## Who took part", "", "| peer | how it was run | its SQLite |", "|---|---|---|"]
    lines += [f"| {peer.name} | {peer.how} | {_presence(run, peer)} |" for peer in peers]
    how = _HOW.format(rounds=run.size.rounds, seconds=run.size.seconds)
    return "\n".join([*lines, "", "## How", "", how, ""])


def _presence(run: Run, peer: Peer) -> str:
    if peer.name in run.absent:
        return f"absent: {run.absent[peer.name]}"
    return run.versions.get(peer.name, "—")


def _cell(run: Run, row: str, who: str) -> str:
    if who in run.absent:
        return "absent"
    if run.failed(row, who):
        return "failed: " + run.failed(row, who).replace("|", "/")
    rate = run.number(row, who, "rate")
    if rate is None:
        return "—"
    times = [run.number(row, who, f"p{at}_ms") or 0 for at in (50, 90, 99)]
    rows = run.number(row, who, "rows_rate")
    more = f" ({rows:,.0f} rows/s)" if rows else ""
    number = f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"
    return f"{number}/s{more}<br>{' / '.join(f'{ms:.2f}' for ms in times)}"


def _alone(run: Run, row: str) -> str:
    rounds = run.found.get(row, {}).get(WALKIN, [])
    said = [run.failed(row, WALKIN).replace("|", "/")] if run.failed(row, WALKIN) else []
    for name in rounds[0] if rounds else ():
        number = run.number(row, WALKIN, name)
        if number is not None and name in _SAID:
            said.append(_SAID[name].format(number))
    return ", ".join(said) or run.left_out.get(row, "not asked in this run")


def write(run: Run, peers: list[Peer], machine: dict[str, str], out: Path) -> None:
    """Write the three files."""
    out.mkdir(parents=True, exist_ok=True)
    raw = {
        "machine": machine,
        "size": dataclasses.asdict(run.size),
        "absent": run.absent,
        "versions": run.versions,
        "found": run.found,
        "faults": run.faults,
        "left_out": run.left_out,
        "bars": [
            {"what": bar.what, "bar": bar.limit, "value": bar.value(run), "is": bar.verdict(run)}
            for bar in BARS
        ],
    }
    (out / "results.json").write_text(json.dumps(raw, indent=1, ensure_ascii=False) + "\n")
    (out / "results.md").write_text(page(run, peers, machine))
    (out / "results.svg").write_text(picture.draw(run, titles(run)))
