"""The porter on a real file: what it says of a database, what goes out, what comes in."""

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox import frames
from sandbox.calls import Call
from sandbox.engine import Engine
from sandbox.forms import Form, Written
from sandbox.gate import Gate
from sandbox.place import DATABASE, WAL
from sandbox.porter import Porter
from sandbox.refusal import Refusal
from sandbox.sqlite import blank_database

BIG = "CREATE TABLE big AS SELECT randomblob(900000) AS x FROM json_each('[1,2,3,4,5]')"


class House:
    """A database of 1,000 pages at most, what carries it, and an engine beside that."""

    def __init__(self, folder: Path) -> None:
        (folder / DATABASE).write_bytes(blank_database())
        (folder / WAL).write_bytes(b"")
        self.gate = Gate(folder / DATABASE, 1000)
        self.porter = Porter(self.gate)
        self.engine = Engine(self.gate)

    def sql(self, sql: str, **how: Any) -> Any:
        return json.loads(self.engine.run(Call(sql, **how), later()).body)

    def rows(self, sql: str) -> Any:
        return self.sql(sql)["rows"]

    def file(self) -> tuple[bytes, bytes]:
        """What goes out: the head and the file behind it."""
        pieces: list[bytes] = []
        self.porter.copy_out(later(), pieces.append)
        return pieces[0], b"".join(pieces[1:])


def later() -> float:
    return time.monotonic() + 30


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    made.sql(
        "CREATE TABLE t(a); INSERT INTO t VALUES(1), ('two'); CREATE VIEW v AS SELECT a FROM t"
    )
    yield made
    made.gate.close()


def image(folder: Path, script: str) -> bytes:
    """A file that somebody else's SQLite has made."""
    with sqlite3.connect(folder / "made.db") as plain:
        plain.executescript(script)
    plain.close()
    return (folder / "made.db").read_bytes()


def test_its_size_is_that_of_its_pages_and_of_what_is_kept_beside_it(house: House) -> None:
    told = json.loads(house.porter.measure({"scope": "full"}, later()).body)
    pages = house.rows("PRAGMA page_count")[0][0]
    assert told == {
        "scope": "full",
        "bytes_used": (pages + 2560 - 1000) * 4096,
        "bytes_allowed": 2560 * 4096,
        "tables": 1,
    }


def test_it_is_described_whole_or_in_part(house: House) -> None:
    told = json.loads(house.porter.describe(Form.JSON, later()).body)
    assert [table["name"] for table in told["tables"]] == ["t"]
    assert [view["name"] for view in told["views"]] == ["v"]
    part = json.loads(house.porter.describe(Form.JSON, later(), frozenset({b"v"})).body)
    assert (part["tables"], [view["name"] for view in part["views"]]) == ([], ["v"])


def test_it_goes_out_as_a_file_with_its_length_and_its_digest(house: House, tmp_path: Path) -> None:
    head, file = house.file()
    length, digest = frames.FILE_HEAD.unpack(head)
    assert (length, digest) == (len(file), hashlib.sha256(file).digest())
    (tmp_path / "out.db").write_bytes(file)
    with sqlite3.connect(tmp_path / "out.db") as plain:
        assert plain.execute("SELECT a FROM t").fetchall() == [(1,), ("two",)]
        assert plain.execute("PRAGMA journal_mode").fetchall() == [("delete",)]
        assert plain.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    plain.close()


def test_it_goes_out_as_the_script_that_makes_it(house: House) -> None:
    pieces: list[bytes] = []
    house.porter.dump(later(), pieces.append)
    with sqlite3.connect(":memory:") as plain:
        plain.executescript(b"".join(pieces).decode())
        assert plain.execute("SELECT a FROM v").fetchall() == [(1,), ("two",)]
    plain.close()


def test_what_goes_out_comes_in_again(house: House) -> None:
    _, file = house.file()
    house.sql("DROP VIEW v; DROP TABLE t; CREATE TABLE other(x)")
    told = json.loads(house.porter.load(file, later()).body)
    assert (told["tables"], house.rows("SELECT a FROM v")) == (1, [[1], ["two"]])
    # In the header is a count of changes.
    assert house.file()[1][100:] == file[100:]


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (BIG, "quota_exceeded"),
        ("CREATE TABLE x(a); CREATE VIEW w AS SELECT load_extension(a) FROM x", "invalid_database"),
    ],
)
def test_a_file_that_is_refused_changes_nothing(
    house: House, tmp_path: Path, script: str, code: str
) -> None:
    with pytest.raises(Refusal) as raised:
        house.porter.load(image(tmp_path, script), later())
    assert raised.value.code == code
    assert house.rows("SELECT a FROM v") == [[1], ["two"]]
    assert house.rows("PRAGMA integrity_check") == [["ok"]]


def test_receipts_of_another_database_stay_outside(house: House, tmp_path: Path) -> None:
    other = House(_folder(tmp_path / "other"))
    other.sql("CREATE TABLE u(a)", key=b"k", print=b"p")
    assert other.gate.keeps_receipts
    house.porter.load(other.file()[1], later())
    assert house.gate.ours("SELECT count(*) FROM sqlite_walkin_receipts") == [(0,)]
    other.gate.close()


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_rows_come_in_all_or_none(house: House) -> None:
    about = {"name": "n", "written": Written.CSV, "gzip": False}
    told = json.loads(house.porter.add_rows(about, b"a,b\n1,x\n2,y\n", later()).body)
    assert told == {"rows_affected": 2, "created": True, "columns": ["a", "b"]}
    house.sql("CREATE UNIQUE INDEX i ON n(a)")
    with pytest.raises(Refusal) as raised:
        house.porter.add_rows(about, b"a,b\n3,z\n1,x\n", later())
    assert (raised.value.code, raised.value.fields["line"]) == ("constraint_failed", 3)
    assert house.rows("SELECT a FROM n") == [[1], [2]]


@pytest.mark.parametrize("act", ["describe", "measure", "copy_out", "dump", "load", "add_rows"])
def test_what_is_no_database_is_told_each_time(tmp_path: Path, act: str) -> None:
    (tmp_path / DATABASE).write_bytes(b"\xff" * 8192)
    porter = Porter(Gate(tmp_path / DATABASE))
    acts = {
        "describe": lambda: porter.describe(Form.JSON, later()),
        "measure": lambda: porter.measure({}, later()),
        "copy_out": lambda: porter.copy_out(later(), lambda _: None),
        "dump": lambda: porter.dump(later(), lambda _: None),
        "load": lambda: porter.load(blank_database(), later()),
        "add_rows": lambda: porter.add_rows({}, b"", later()),
    }
    with pytest.raises(Refusal, match="not a database"):
        acts[act]()
