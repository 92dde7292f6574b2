"""What a hostile case is, and the database that each one attacks.

A case is data: the same list is run again wherever SQL comes in by another door.
"""

from typing import Any, NamedTuple

#: What the contract says; kept apart from the product's own table.
_STATUS = {
    "invalid_json": 400,
    "invalid_args": 400,
    "forbidden_keyword": 400,
    "not_authorized": 400,
    "sql_error": 400,
    "out_of_memory": 400,
    "transaction_open": 400,
    "text_not_utf8": 400,
    "query_timeout": 408,
    "quota_exceeded": 507,
}

#: How SQLite's own refusal is told: a case that says `sql_error` means any of them.
ANY_SQL_ERROR = frozenset(
    """
    sql_error syntax_error unknown_table unknown_column unknown_function ambiguous_column
    already_exists datatype_mismatch constraint_failed
    """.split()
)

#: One of each kind that can be attacked, and a row that no attack may touch.
FURNITURE = """
    CREATE TABLE kept(x); INSERT INTO kept VALUES('safe');
    CREATE TABLE t(a); INSERT INTO t VALUES(1), (2), (3);
    CREATE VIRTUAL TABLE f USING fts5(a); INSERT INTO f VALUES('one two'), ('one three');
    CREATE VIRTUAL TABLE r USING rtree(id, a, b); INSERT INTO r VALUES(1, 0, 1);
"""


class Case(NamedTuple):
    """One attack: what it hopes for, and the only answer that it may get.

    `setup` are calls made before it, all of which succeed; `rows` are the rows of its 200, if
    they matter.
    """

    name: str
    attack: str
    sql: str
    args: Any
    status: int
    code: str | None
    setup: tuple[str, ...]
    rows: Any


def refused(
    code: str, name: str, attack: str, sql: str, args: Any = None, setup: tuple[str, ...] = ()
) -> Case:
    """A case that ends in an error of this code."""
    return Case(name, attack, sql, args, _STATUS[code], code, setup, None)


def harmless(
    name: str,
    attack: str,
    sql: str,
    args: Any = None,
    setup: tuple[str, ...] = (),
    rows: Any = None,
) -> Case:
    """A case that is run like any other SQL, and gains nothing."""
    return Case(name, attack, sql, args, 200, None, setup, rows)


def numbers(most: int | None = None) -> str:
    """The beginning of a statement that can select i from n: 1, 2, ... `most`, or for ever."""
    limit = "" if most is None else f" LIMIT {most}"
    return f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n{limit}) "


def repeated(text: str, times: int) -> str:
    """An SQL expression: a text of any length from a few letters."""
    return f"replace(hex(zeroblob({times})), '00', '{text}')"
