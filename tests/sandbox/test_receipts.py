"""Receipts: kept beside the change, found again, and few."""

from collections.abc import Iterator
from typing import Any

import apsw
import pytest

from sandbox import frames, receipts
from sandbox.answers import Answer
from sandbox.calls import Call
from sandbox.refusal import Refusal


@pytest.fixture
def ours() -> Iterator[receipts.Ours]:
    """A runner on a database in memory, whose table has a name that may be made there."""
    connection = apsw.Connection(":memory:")
    connection.config(apsw.SQLITE_DBCONFIG_WRITABLE_SCHEMA, 1)
    connection.execute(receipts.MAKE)

    def run(sql: str, *values: Any) -> list[tuple[Any, ...]]:
        return connection.execute(sql, values).fetchall()

    yield run
    connection.close()


def call(key: str, body: bytes = b"{}") -> Call:
    return Call("", key=key.encode(), print=receipts.fingerprint(body, 0))


def is_kept(ours: receipts.Ours, key: str) -> bool:
    return receipts.find(ours, call(key)) is not None


def test_an_answer_is_found_with_its_marks(ours: receipts.Ours) -> None:
    assert receipts.find(ours, call("k")) is None
    receipts.keep(ours, call("k"), Answer(b"body", frames.CUT_ROWS))
    assert receipts.find(ours, call("k")) == Answer(b"body", frames.CUT_ROWS | frames.REPLAYED)


def test_another_body_or_form_has_another_print(ours: receipts.Ours) -> None:
    receipts.keep(ours, call("k"), Answer(b""))
    with pytest.raises(Refusal) as refused:
        receipts.find(ours, call("k", b"{ }"))
    assert refused.value.code == "key_reused"
    assert receipts.fingerprint(b"", 0) != receipts.fingerprint(b"", 1)


def test_the_oldest_give_way(ours: receipts.Ours) -> None:
    for number in range(receipts.MOST + 1):
        receipts.keep(ours, call(f"k{number}"), Answer(b""))
    assert (is_kept(ours, "k0"), is_kept(ours, "k1")) == (False, True)


def test_the_longest_answers_leave_room_for_few(ours: receipts.Ours) -> None:
    for number in range(20):
        receipts.keep(ours, call(f"k{number}"), Answer(bytes(receipts.ANSWER_BYTES)))
    most = receipts.MOST_BYTES // receipts.ANSWER_BYTES
    assert [is_kept(ours, f"k{n}") for n in range(20)] == [n >= 20 - most for n in range(20)]


def test_an_answer_over_the_cap_is_refused(ours: receipts.Ours) -> None:
    with pytest.raises(Refusal):
        receipts.keep(ours, call("k"), Answer(bytes(receipts.ANSWER_BYTES + 1)))
    assert not is_kept(ours, "k")


def test_what_the_schema_says_of_the_table_is_known(ours: receipts.Ours) -> None:
    for column in ("name", "tbl_name", "sql", "*"):
        rows = ours(f"SELECT {column} FROM sqlite_schema")
        assert all(map(receipts.shows, rows))
        assert rows
    assert not receipts.shows(("t", f"t,{receipts.TABLE}", None, 1, b""))
