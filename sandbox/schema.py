"""What a database is made of: tables, views, indexes, triggers, as an object or as a page to read.

Runs in: cells. Standard library only. Everything is asked of SQLite's own schema table and of the
table forms of its pragmas (https://www.sqlite.org/pragma.html#pragfunc); a table whose definition
SQLite cannot read any more is told with its error and hides no other.
"""

import json
import time
from collections.abc import Callable
from typing import Any

from sandbox.ours import Ours

#: `hidden` of a column that is computed whenever it is read.
_VIRTUAL = 2
#: How long rows are counted for all tables together; what is not counted then is told as null.
_COUNT_S = 0.2
#: How long is looked into tables and views; of those that come later only the SQL is told.
_LOOK_S = 1.0
#: So many tables and views are told, and so much of them; what is too long is left out.
_MOST = 500
_MOST_BYTES = 1 << 20


def only(found: dict[str, Any], is_reached: Callable[[str], bool]) -> dict[str, Any]:
    """Return what `describe` has found, without the tables and views that are not reached."""
    kept = {
        kind: [one for one in found[kind] if is_reached(one["name"])]
        for kind in ("tables", "views")
    }
    return found | kept


class Described:
    """One look at a database, by a runner of reading statements, until a deadline.

    `deadline` is in seconds of time.monotonic(); `fault` is what the runner raises.
    """

    def __init__(self, ours: Ours, deadline: float, fault: type[Exception]) -> None:
        self._ours = ours
        now = time.monotonic()
        self._count_until = min(now + _COUNT_S, deadline)
        self._look_until = min(now + _LOOK_S, deadline)
        self._fault = fault
        self._is_late = False

    def describe(self) -> dict[str, Any]:
        """Return everything, in the order in which it was made. Raises `fault`."""
        found = self._ours(
            "SELECT type, name, tbl_name, sql FROM sqlite_schema"
            " WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid"
        )
        # The tables in which FTS5 and R-Tree keep theirs are nobody's own.
        shadows = {
            name
            for (name,) in self._ours("SELECT name FROM pragma_table_list WHERE type = 'shadow'")
        }
        kept = [row for row in found if not {row[1], row[2]} & shadows]
        relations = [row for row in kept if row[0] in ("table", "view")]
        schema: dict[str, Any] = {"tables": [], "views": []}
        left = _MOST_BYTES
        belongings: dict[str, list[Any]] = {}
        for row in kept:
            belongings.setdefault(row[2], []).append(row)
        for kind, name, _, sql in relations[:_MOST]:
            relation = self._relation(kind, name, sql, belongings.get(name, []))
            size = len(json.dumps(relation))
            if size > left:
                schema["truncated"] = True
                continue
            left -= size
            schema[kind + "s"].append(relation)
        if len(relations) > _MOST or self._is_late:
            schema["truncated"] = True
        return schema

    def _relation(self, kind: str, name: str, sql: str, belongings: list[Any]) -> dict[str, Any]:
        about: dict[str, Any] = {"name": name, "sql": sql}
        triggers = [
            {"name": one, "sql": text} for what, one, _, text in belongings if what == "trigger"
        ]
        if triggers:
            about["triggers"] = triggers
        if time.monotonic() > self._look_until:
            # A view may take most of a second to be looked into, and that no clock ends.
            self._is_late = True
            return about
        try:
            about["columns"] = self._columns(name)
            if kind == "table":
                about["foreign_keys"] = self._foreign_keys(name)
                about["indexes"] = self._indexes(name, belongings)
                about["rows"] = self._count(name)
        except self._fault as error:
            about["error"] = str(error)
        return about

    def _columns(self, table: str) -> list[dict[str, Any]]:
        rows = self._ours(
            'SELECT name, type, "notnull", dflt_value, pk, hidden FROM pragma_table_xinfo(?)'
            " WHERE hidden <> 1",
            table,
        )
        columns = []
        for name, kind, not_null, default, place, hidden in rows:
            column: dict[str, Any] = {"name": name, "type": kind}
            if not_null:
                column["not_null"] = True
            if default is not None:
                column["default"] = default
            if place:
                column["primary_key"] = place
            if hidden:
                column["generated"] = "virtual" if hidden == _VIRTUAL else "stored"
            columns.append(column)
        return columns

    def _foreign_keys(self, table: str) -> list[dict[str, Any]]:
        rows = self._ours(
            'SELECT id, "table", "from", "to", on_update, on_delete'
            " FROM pragma_foreign_key_list(?) ORDER BY id, seq",
            table,
        )
        keys: dict[int, dict[str, Any]] = {}
        for number, other, here, there, on_update, on_delete in rows:
            key = keys.setdefault(
                number,
                {
                    "columns": [],
                    "table": other,
                    "to": [],
                    "on_update": on_update,
                    "on_delete": on_delete,
                },
            )
            key["columns"].append(here)
            key["to"].append(there)
        return list(keys.values())

    def _indexes(self, table: str, belongings: list[Any]) -> list[dict[str, Any]]:
        listed = self._ours('SELECT name, "unique" FROM pragma_index_list(?)', table)
        unique = {name: bool(one) for name, one in listed}
        return [
            {
                "name": index,
                "columns": [
                    name for (name,) in self._ours("SELECT name FROM pragma_index_info(?)", index)
                ],
                "unique": unique.get(index, False),
                "sql": sql,
            }
            for kind, index, _, sql in belongings
            if kind == "index"
        ]

    def _count(self, table: str) -> int | None:
        if time.monotonic() >= self._count_until:
            return None
        quoted = '"' + table.replace('"', '""') + '"'
        ((count,),) = self._ours(f"SELECT count(*) FROM {quoted}")  # noqa: S608 - quoted
        return int(count)


def as_markdown(schema: dict[str, Any]) -> str:
    """Return a description as a page: what a model needs to write a query, and no more."""
    lines: list[str] = []
    for kind in ("tables", "views"):
        for one in schema[kind]:
            rows = one.get("rows")
            count = "" if rows is None else f" ({rows:,} rows)"
            lines.append(f"## {kind[:-1]} {one['name']}{count}\n\n```sql\n{one['sql']}\n```\n")
            if "error" in one:
                lines.append(f"*It cannot be read: {one['error']}.*\n")
            lines += [f"```sql\n{index['sql']}\n```\n" for index in one.get("indexes", ())]
            lines += [f"```sql\n{trigger['sql']}\n```\n" for trigger in one.get("triggers", ())]
    if schema.get("truncated"):
        lines.append("*There is more than is told here.*\n")
    return "\n".join(lines) or "The database is empty.\n"
