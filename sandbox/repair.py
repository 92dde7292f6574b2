"""What helps to repair a statement: the name that was meant, the token, the constraint.

Runs in: cells. Standard library only. Everything comes from SQLite's own words and from the
caller's own database, which is looked at for 50 ms at most, after the failure and before anything
is rolled back; what cannot be seen in that time, or at all, is left out. All that is said of one
error is below 8 KB.
"""

import contextlib
import re
import time
from collections.abc import Callable, Iterable
from typing import Any

from sandbox import blocklist, dialects, policy, tokens
from sandbox.names import nearest, short
from sandbox.ours import Ours

_LOOK_S = 0.05
#: How near a word must be to a keyword to be taken for one.
_SURE = 0.75
_SUGGESTIONS = 5
_TABLES = 10
_COLUMNS = 100
_NAMES = 2000

_UNKNOWN_TABLE = re.compile(r"no such (?P<kind>table|view|index|trigger): (?P<name>.+)", re.DOTALL)
_UNKNOWN_COLUMN = re.compile(
    r'no such column: "(?P<quoted>.+)" - should this be .*|no such column: (?P<name>.+)'
    r"|table (?P<table>.+) has no column named (?P<of>.+)",
    re.DOTALL,
)
_UNKNOWN_FUNCTION = re.compile(r"no such function: (?P<name>.+)", re.DOTALL)
_WRONG_COUNT = re.compile(r"wrong number of arguments to function (?P<name>.+)\(\)", re.DOTALL)
_AMBIGUOUS = re.compile(r"ambiguous column name: (?P<name>.+)", re.DOTALL)
_EXISTS = re.compile(
    r"(?:table|view|index|trigger) (?P<name>.+) already exists"
    r"|there is already (?:a|an) \w+ named (?P<named>.+)|duplicate column name: (?P<column>.+)",
    re.DOTALL,
)
_SYNTAX = re.compile(
    r'near "(?P<near>.*)": syntax error|unrecognized token: "(?P<odd>.*)"|incomplete input',
    re.DOTALL,
)
_COUNT_OF_VALUES = re.compile(
    r"table (?P<name>.+) has \d+ columns but \d+ values were supplied|\d+ values for \d+ columns",
    re.DOTALL,
)
_OF_COLUMNS = re.compile(r"(?:UNIQUE|NOT NULL) constraint failed: (?P<list>.+)", re.DOTALL)
_OF_CHECK = re.compile(r"CHECK constraint failed: (?P<name>.+)", re.DOTALL)
_OF_TYPE = re.compile(r"cannot store \w+ value in \w+ column (?P<list>.+)", re.DOTALL)
_KINDS = {
    "SQLITE_CONSTRAINT_PRIMARYKEY": "primary key",
    "SQLITE_CONSTRAINT_ROWID": "primary key",
    "SQLITE_CONSTRAINT_UNIQUE": "unique",
    "SQLITE_CONSTRAINT_NOTNULL": "not null",
    "SQLITE_CONSTRAINT_CHECK": "check",
    "SQLITE_CONSTRAINT_FOREIGNKEY": "foreign key",
    "SQLITE_CONSTRAINT_DATATYPE": "datatype",
    "SQLITE_CONSTRAINT_TRIGGER": "trigger",
    "SQLITE_CONSTRAINT_VTAB": "virtual table",
}
#: In these FTS5 and R-Tree keep what is theirs.
_SHADOW = re.compile(rf"(.+)_(?:{'|'.join(policy.SHADOWS)})", re.DOTALL)


def explain(words: str, name: str, text: str, ours: Ours) -> tuple[str, dict[str, Any]]:
    """Return the code of an error and the members that help. Raises nothing.

    `words` are SQLite's, `name` its extended code's, `text` the failing statement.
    """
    if name == "SQLITE_MISMATCH":
        return "datatype_mismatch", {}
    if name.startswith("SQLITE_CONSTRAINT"):
        return "constraint_failed", {"constraint": _constraint(words, name)}
    if found := _SYNTAX.fullmatch(words):
        return "syntax_error", _of_syntax(found, text)
    schema = _Schema(ours, text)
    for pattern, code, help_with in _CASES:
        if found := pattern.fullmatch(words):
            return code, help_with(schema, found)
    return "sql_error", {}


def _constraint(words: str, name: str) -> dict[str, Any]:
    about: dict[str, Any] = {"kind": _KINDS.get(name, "other")}
    if found := _OF_COLUMNS.fullmatch(words) or _OF_TYPE.fullmatch(words):
        if found["list"].startswith("index '"):
            return about | {"name": short(found["list"][7:-1])}
        parts = [part.rpartition(".") for part in found["list"].split(", ")]
        about["table"] = short(parts[0][0])
        about["columns"] = [short(column) for _, _, column in parts[:_COLUMNS]]
    elif found := _OF_CHECK.fullmatch(words):
        about["name"] = short(found["name"])
    return about


def _of_syntax(found: re.Match[str], text: str) -> dict[str, Any]:
    token = found["near"] if found["near"] is not None else found["odd"]
    parts = tokens.tokens(text)
    hint = dialects.hint(token or "", parts)
    fields: dict[str, Any] = {}
    if token is not None:
        fields["token"] = short(token)
        near = [] if hint else nearest(token, dialects.KEYWORDS, least=_SURE)
        if near and token.upper() not in dialects.KEYWORDS:
            fields["suggestions"] = near[:_SUGGESTIONS]
    if token is None or found["odd"]:
        hint = hint or _unclosed(parts)
    if token is None and not hint:
        hint = "the statement ends too early"
    return fields | ({"hint": hint} if hint else {})


def _unclosed(parts: list[tokens.Token]) -> str:
    """Return what has been opened and not closed."""
    for kind, text in parts[-1:]:
        mark = "]" if text[0] == "[" else text[0]
        if kind in ("string", "quoted") and (len(text) == 1 or text[-1] != mark):
            return f"a quote is not closed: {short(text)}"
    open_ = sum((text == "(") - (text == ")") for _, text in parts)
    return f"{open_} of the brackets are not closed" if open_ > 0 else ""


class _Schema:
    """The caller's tables, views and columns, as far as there is time to look."""

    def __init__(self, ours: Ours, text: str) -> None:
        self._ours = ours
        self._until = time.monotonic() + _LOOK_S
        self._words = {token.name for token in tokens.tokens(text)}
        self._known: list[str] | None = None

    def _rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        if time.monotonic() < self._until:
            with contextlib.suppress(Exception):  # whatever it is, the error goes out without this
                return self._ours(sql, *values)
        return []

    def _nearest(self, name: str, known: list[str]) -> list[str]:
        return nearest(name, known, until=self._until)

    def _tables(self) -> list[str]:
        if self._known is None:
            rows = self._rows(
                "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') UNION"
                " SELECT name FROM sqlite_temp_schema WHERE type IN ('table', 'view')"
                " LIMIT ?",
                _NAMES,
            )
            names = {str(name) for (name,) in rows}
            self._known = sorted(
                name
                for name in names
                if not name.startswith("sqlite_")
                and not ((found := _SHADOW.fullmatch(name)) and found[1] in names)
            )
        return self._known

    def _columns(self, table: str) -> list[str]:
        rows = self._rows("SELECT name FROM pragma_table_xinfo(?) WHERE hidden <> 1", table)
        return [str(name) for (name,) in rows[:_COLUMNS]]

    def members(self, tables: Iterable[str] | None = None) -> dict[str, Any]:
        """Return the columns of the tables, or of those that the statement names."""
        if tables is None:
            tables = [table for table in self._tables() if table.lower() in self._words]
        found: dict[str, list[str]] = {}
        room = 6000
        for table in list(tables)[:_TABLES]:
            columns = [short(column) for column in self._columns(table)]
            room -= len(table) + sum(map(len, columns)) + 3 * len(columns)
            if columns and room > 0:
                found[short(table)] = columns
        return {"tables": found} if found else {}

    def for_table(self, found: re.Match[str]) -> dict[str, Any]:
        """Help with a table, or the like, that is not there."""
        name = found["name"]
        if found["kind"] in ("index", "trigger"):
            sql = "SELECT name FROM sqlite_schema WHERE type = ? LIMIT ?"
            rows = self._rows(sql, found["kind"], _NAMES)
            others = [str(one) for (one,) in rows if not str(one).startswith("sqlite_")]
            near = self._nearest(name, others)[:_SUGGESTIONS] or others[:_SUGGESTIONS]
            return {"name": short(name), "suggestions": [short(one) for one in near]}
        bare = name.rpartition(".")[2] if name.partition(".")[0] in ("main", "temp") else name
        known = self._tables()
        if not known:
            return {"name": short(bare), "hint": "the database has no tables yet"}
        near = self._nearest(bare, known)[:_SUGGESTIONS] or known[:_SUGGESTIONS]
        fields = {"name": short(bare), "suggestions": [short(one) for one in near]}
        return fields | self.members(near[:2])

    def for_column(self, found: re.Match[str]) -> dict[str, Any]:
        """Help with a column that is not there."""
        name, table = found["quoted"] or found["name"] or found["of"], found["table"]
        bare = name.strip('"').rpartition(".")[2]
        concerned = self.members([table] if table else None)
        columns = [one for names in concerned.get("tables", {}).values() for one in names]
        near = self._nearest(bare, list(dict.fromkeys(columns)))
        if not near and not table:
            near = self._nearest(bare, self._elsewhere())
        fields: dict[str, Any] = {"name": short(bare)}
        if near:
            fields["suggestions"] = [short(one) for one in near[:_SUGGESTIONS]]
        return fields | concerned

    def _elsewhere(self) -> list[str]:
        """Return columns of tables that the statement does not name, as `table.column`."""
        found = []
        for table in self._tables()[:_TABLES]:
            found += [f"{table}.{column}" for column in self._columns(table)]
        return found

    def for_ambiguous(self, found: re.Match[str]) -> dict[str, Any]:
        """Help with a column that several tables have."""
        bare = found["name"].rpartition(".")[2]
        concerned = self.members()
        having = [
            f"{table}.{column}"
            for table, columns in concerned.get("tables", {}).items()
            for column in columns
            if column.lower() == bare.lower()
        ]
        return {"name": short(bare), "suggestions": having[:_SUGGESTIONS]} | concerned

    def for_function(self, found: re.Match[str]) -> dict[str, Any]:
        """Help with a function that is not there."""
        name = found["name"]
        other = dialects.FUNCTIONS.get(name.lower())
        rows = self._rows("SELECT DISTINCT name FROM pragma_function_list")
        known = [
            one
            for (one,) in rows
            if one[:1].isalpha() and not policy.is_refused(one) and not blocklist.is_refused(one)
        ]
        near = self._nearest(name, known)
        if other:
            near = [other, *(one for one in near if one != other)]
        return {"name": short(name), "suggestions": near[:_SUGGESTIONS]}

    def for_count(self, found: re.Match[str]) -> dict[str, Any]:
        """Help with a function that takes another number of arguments."""
        name = found["name"]
        rows = self._rows("SELECT DISTINCT narg FROM pragma_function_list WHERE name = ?", name)
        counts = sorted(count for (count,) in rows if count >= 0)
        takes = " or ".join(map(str, counts))
        return {"name": short(name)} | ({"hint": f"{name} takes {takes}"} if takes else {})


#: SQLite's words, the code for them, and what helps.
_CASES: tuple[tuple[re.Pattern[str], str, Callable[[_Schema, re.Match[str]], dict[str, Any]]], ...]
_CASES = (
    (_UNKNOWN_TABLE, "unknown_table", _Schema.for_table),
    (_UNKNOWN_COLUMN, "unknown_column", _Schema.for_column),
    (_UNKNOWN_FUNCTION, "unknown_function", _Schema.for_function),
    (_AMBIGUOUS, "ambiguous_column", _Schema.for_ambiguous),
    (
        _EXISTS,
        "already_exists",
        lambda _, found: {
            "name": short((found["name"] or found["named"] or found["column"]).strip('"'))
        },
    ),
    (_WRONG_COUNT, "sql_error", _Schema.for_count),
    (_COUNT_OF_VALUES, "sql_error", lambda schema, _: schema.members()),
)
