"""Receipts: the answers of calls with a key, kept so that a repeat changes nothing.

Runs in: cells. A receipt is written in the transaction of the change itself: both are there or
neither is. They lie in a table of the database's own that is named as SQLite names its internal
ones, so no caller can make, change or drop it; the gate keeps all others from reading it.
"""

import hashlib
from typing import Any

from sandbox import frames
from sandbox.answers import Answer
from sandbox.calls import Call
from sandbox.ours import Ours
from sandbox.refusal import Refusal

TABLE = "sqlite_walkin_receipts"
# No index: each would be one more row of the schema, and few are to be searched.
MAKE = (
    f"CREATE TABLE IF NOT EXISTS {TABLE}(number INTEGER PRIMARY KEY, key BLOB, print BLOB,"
    " marks INTEGER, body BLOB)"
)
#: How the schema has it then.
MADE = MAKE.replace("IF NOT EXISTS ", "")
#: How the schema tells of it; a value that has one of these inside may be many tables' words.
_SHOWING = frozenset({TABLE, MADE})
#: Older ones give way to newer ones beyond these.
MOST = 100
MOST_BYTES = 512 << 10
#: The longest answer that is kept.
ANSWER_BYTES = 64 << 10


def fingerprint(body: bytes, form: int) -> bytes:
    """Return what tells a call from another under the same key."""
    return hashlib.sha256(b"%d:%b" % (form, body)).digest()


def find(ours: Ours, call: Call) -> Answer | None:
    """Return the kept answer. Raises Refusal if the key was used for another call."""
    if not ours("SELECT 1 FROM sqlite_schema WHERE name = ?", TABLE):
        return None
    found = ours(f"SELECT print, marks, body FROM {TABLE} WHERE key = ?", call.key)  # noqa: S608
    if not found:
        return None
    ((known, marks, body),) = found
    if known != call.print:
        raise Refusal(
            "key_reused", "this key was used for another call", hint="take a new key for each call"
        )
    return Answer(body, marks | frames.REPLAYED)


def keep(ours: Ours, call: Call, answer: Answer) -> None:
    """Keep an answer, in the transaction that is open. Raises Refusal if it is too long."""
    if len(answer.body) > ANSWER_BYTES:
        raise Refusal(
            "invalid_option",
            f"an answer of {len(answer.body):,} bytes cannot be kept under a key,"
            f" which has room for {ANSWER_BYTES:,}",
            hint="ask for fewer rows, with LIMIT or `max_bytes`",
        )
    ours(
        f"INSERT INTO {TABLE}(key, print, marks, body) VALUES(?, ?, ?, ?)",
        call.key,
        call.print,
        answer.marks,
        answer.body,
    )
    ours(
        f"DELETE FROM {TABLE} WHERE number <= (SELECT max(number) FROM {TABLE}) - ?"  # noqa: S608
        f" OR number < (SELECT min(number) FROM (SELECT number, sum(length(body))"
        f" OVER (ORDER BY number DESC) AS size FROM {TABLE}) WHERE size <= ?)",
        MOST,
        MOST_BYTES,
    )


def shows(row: tuple[Any, ...]) -> bool:
    """Say whether a row of the schema tells of the table, and of nothing else."""
    return not _SHOWING.isdisjoint(value for value in row if isinstance(value, str))
