"""The bars: what walkin has promised to reach, and whether a run has reached it."""

from dataclasses import dataclass
from typing import NamedTuple

from tests.bench.run import LONG, Run
from tests.bench.workloads import BARE, SQLD, TWO, WALKIN


class Number(NamedTuple):
    """Where a number stands."""

    row: str
    what: str = "rate"
    who: str = WALKIN


@dataclass(frozen=True)
class Bar:
    """One bar: a number, or its ratio to another, on one side of a limit."""

    what: str
    number: Number
    to: Number | None = None
    least: float | None = None
    most: float | None = None
    unit: str = ""
    #: Whether it says something of 100,000 databases only.
    of_crowd: bool = False

    @property
    def limit(self) -> str:
        """The limit as it is written."""
        if self.least is not None:
            return f"≥ {self.least:,g}{self.unit}"
        return "—" if self.most is None else f"≤ {self.most:,g}{self.unit}"

    def value(self, run: Run) -> float | None:
        """Return what was reached; None if it was not measured."""
        ours = run.number(self.number.row, self.number.who, self.number.what)
        if self.to is None or ours is None:
            return ours
        theirs = run.number(self.to.row, self.to.who, self.to.what)
        return ours / theirs if theirs else None

    def shown(self, run: Run) -> str:
        """The value as it is written."""
        value = self.value(run)
        if value is None:
            return "—"
        number = f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"
        return number + self.unit

    def verdict(self, run: Run) -> str:
        """Say met, not met, or why it cannot be said."""
        if run.failed(self.number.row, self.number.who):
            return f"**not met**: {run.failed(self.number.row, self.number.who)}"
        value = self.value(run)
        if value is None:
            return f"not measured: {self._reason(run)}"
        if run.size != LONG:
            return "not judged: short form"
        crowd = run.number("crowd", WALKIN, "count") or 0
        if self.of_crowd and crowd < LONG.crowd:
            return f"**not met**: measured with {crowd:,.0f} databases"
        if self.least is None and self.most is None:
            return "seen"
        met = value >= self.least if self.least is not None else value <= (self.most or 0)
        return "met" if met else "**not met**"

    def _reason(self, run: Run) -> str:
        if self.number.row in run.left_out:
            return run.left_out[self.number.row]
        for number in (self.number, self.to):
            if number is not None and number.who in run.absent:
                return f"{number.who} is absent ({run.absent[number.who]})"
            if number is not None and run.failed(number.row, number.who):
                return f"{number.who}: {run.failed(number.row, number.who)}"
        return "not asked in this run"


_BARE_32 = Number("select_32", who=BARE)
_SELECT_32 = Number("select_32")
_INSERT = "one-row INSERT, 32 connections over 32 databases"
_CREATE = "create + CREATE TABLE, 8 connections"
_MANY = "100,000 live databases"
_BOMBS = "16 databases running CPU bombs without pause"

BARS = (
    Bar("`SELECT 1`, 32 connections: to the bare Starlette route", _SELECT_32, _BARE_32, 0.6),
    Bar("`SELECT 1`, 32 connections: to sqld", _SELECT_32, Number("select_32", who=SQLD), 2.5),
    Bar(
        "`SELECT 1`, 1 connection, p50: to sqld's",
        Number("select_1", "p50_ms"),
        Number("select_1", "p50_ms", SQLD),
        most=0.6,
    ),
    Bar(
        f"{_INSERT}: to our own `SELECT 1`",
        Number("insert"),
        _SELECT_32,
        least=0.5,
    ),
    Bar(f"{_INSERT}: to sqld", Number("insert"), Number("insert", who=SQLD), 2),
    Bar("1,000 rows of 5 columns, read: to sqld", Number("read"), Number("read", who=SQLD), 1.5),
    Bar(
        f"{_CREATE}: to sqld's namespace creation",
        Number("create"),
        Number("create", who=SQLD),
        least=1.5,
    ),
    Bar(_CREATE, Number("create"), least=300, unit="/s"),
    Bar(
        "cold reopen, p50: to the p50 of a creation",
        Number("reopen", "p50_ms"),
        Number("creation", "p50_ms"),
        most=3,
    ),
    Bar("a copy of 1 MB, p50", Number("fork_1", "p50_ms"), most=20, unit=" ms"),
    Bar("a copy of 9 MB, p50", Number("fork_9", "p50_ms"), unit=" ms"),
    Bar("1 MB kept, changed and gone back to, p50", Number("rewind_1", "p50_ms"), unit=" ms"),
    Bar("4 MB kept, changed and gone back to, p50", Number("rewind_4", "p50_ms"), unit=" ms"),
    Bar("a database of 9 MB downloaded", Number("download", "mb_per_s"), unit=" MB/s"),
    Bar("a database of 9 MB uploaded", Number("upload", "mb_per_s"), unit=" MB/s"),
    Bar(f"{_MANY}: alive at once", Number("crowd", "count"), least=LONG.crowd),
    Bar(f"{_MANY}: creations that failed", Number("crowd", "errors"), most=0, of_crowd=True),
    Bar(
        f"{_MANY}: growth of front desk, zygote and reaper together",
        *(Number("crowd", "grown_mb"), None, None, 60, " MB", True),
    ),
    Bar(f"{_MANY}: disk of each", Number("crowd", "disk_kb"), None, None, 14, " KB", True),
    Bar(
        f"{_MANY}: removal when all have expired",
        *(Number("removal", "removed_per_s"), None, 2000, None, "/s", True),
    ),
    Bar(
        f"{_MANY}: p99 of `SELECT 1` on a live one meanwhile",
        *(Number("removal", "p99_ms"), None, None, 25, " ms", True),
    ),
    Bar("a live cell, private memory (PSS)", Number("cell", "pss_mb"), most=4, unit=" MB"),
    Bar(
        f"{_BOMBS}: p99 of a neighbour's `SELECT 1`",
        *(Number("beside_bombs", "p99_ms"), None, None, 50, " ms"),
    ),
    Bar(f"{_BOMBS}: p99 of `/healthz`", Number("healthz", "p99_ms"), most=25, unit=" ms"),
    Bar(f"{_BOMBS}: answers of 5xx", Number("bombs", "server_errors"), most=0),
    Bar("`SELECT 1`, 128 connections: to 32", Number("select_128"), _SELECT_32, 0.8),
    Bar(
        "`SELECT 1`, 128 connections over 32 databases: to 32",
        *(Number("many_128"), Number("select_many"), 0.8),
    ),
    Bar("`--workers 2`: calls whose row is missing", Number("insert", "errors", TWO), most=0),
    Bar(
        "`--workers 2`, `SELECT 1` over 32 databases: to one worker",
        Number("select_many", who=TWO),
        Number("select_many"),
    ),
)
