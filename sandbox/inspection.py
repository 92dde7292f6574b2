"""What makes a database file of a caller's own one that cannot be taken.

Runs in: cells. Standard library only. The file has been opened already, under the authorizer and
without the modules that are not to be had. Whatever expression a schema keeps is compiled by some
statement on the table that it belongs to; compiled, it comes past the authorizer. So each table is
read, inserted into, updated and deleted from, all with EXPLAIN, which runs nothing. What SQLite
cannot compile (a view of a table that is gone, a function or a module that it does not have) cannot
be told from what it never may: such a file is refused with SQLite's own words.
"""

from collections.abc import Iterator
from typing import Any

from sandbox import blocklist, receipts, tokens
from sandbox.names import quoted
from sandbox.ours import Ours

_KINDS = frozenset({"table", "index", "view", "trigger"})
_VIRTUAL = ["create", "virtual"]


def inspect(look: Ours) -> str | None:
    """Return why the database is to be refused, or None. Raises what `look` does for the rest.

    `look` is to look at the clock before each statement: what is only compiled never comes to
    SQLite's own.
    """
    # Whether something is named that nobody may use comes first: the check below runs expressions.
    rows = look("SELECT type, name, tbl_name, sql FROM main.sqlite_schema")
    for row in rows:
        wrong = _row(*row)
        if wrong:
            return wrong
    _compile(look, rows)
    # Not quick_check, which never compares a table with its indexes.
    ((found, *_), *_) = look("PRAGMA main.integrity_check(1)")
    return None if found == "ok" else f"the file is damaged: {found}"


def _row(kind: object, name: object, table: object, sql: object) -> str | None:
    """Say what is wrong with a row of the schema, as it is written."""
    if kind not in _KINDS or not isinstance(name, str) or not isinstance(table, str):
        return "the file is damaged: its schema has a row that describes nothing"
    if receipts.TABLE in (name.lower(), table.lower()):
        # The service reads it past the authorizer, so it must be exactly what the service makes.
        ours = ("table", receipts.TABLE, receipts.TABLE, receipts.MADE)
        return None if (kind, name, table, sql) == ours else f"{name} is the service's own name"
    if sql is None and kind == "index":  # of a UNIQUE or a PRIMARY KEY
        return None
    if not isinstance(sql, str):
        return f"the file is damaged: its schema does not say what {name} is"
    # An SQLite that lacks one of these would only say that there is no such function.
    keyword = blocklist.forbidden(sql)
    return f"{name} uses {keyword}, which is not available here" if keyword else None


def _compile(look: Ours, rows: list[tuple[Any, ...]]) -> None:
    """Have SQLite compile everything that the schema keeps. Raises what `look` does."""
    triggered = {table.lower() for kind, _, table, _ in rows if kind == "trigger"}
    for kind, name, _, sql in rows:
        if kind not in ("table", "view") or name == receipts.TABLE:
            continue
        # Not asked of PRAGMA table_list, which takes seconds for views of views, past the clock.
        is_virtual = [token.name for token in tokens.tokens(sql)[:2]] == _VIRTUAL
        # Of a view this shows everything there is. A virtual table opens what lies behind it
        # (FTS5 the table of its content) only when it is really read.
        how, end = ("", "LIMIT 1") if is_virtual else ("EXPLAIN", "")
        look(f"{how} SELECT * FROM main.{quoted(name)} {end}")  # noqa: S608 - a name, and quoted
        if is_virtual or (kind == "view" and name.lower() not in triggered):
            continue
        for statement in _writes(look, name):
            try:
                look(statement)
            except Exception as error:
                if str(error) not in (
                    # There are triggers for some of the three only.
                    f"cannot modify {name} because it is a view",
                    # FTS5 and R-Tree keep theirs in it: see DEFENSIVE.
                    f"table {name} may not be modified",
                ):
                    raise


def _writes(look: Ours, name: str) -> Iterator[str]:
    """Make the statements that compile each default, check, index and trigger of a table."""
    table = f"main.{quoted(name)}"
    yield f"EXPLAIN INSERT INTO {table} DEFAULT VALUES"
    columns = look("SELECT name FROM pragma_table_xinfo(?) WHERE hidden = 0", name)
    # All of them, since a trigger may be for some only.
    values = ", ".join(f"{quoted(column)} = NULL" for (column,) in columns)
    yield f"EXPLAIN UPDATE {table} SET {values}"  # noqa: S608 - names, and quoted
    yield f"EXPLAIN DELETE FROM {table}"  # noqa: S608 - a name, and quoted
