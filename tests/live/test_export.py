"""A database on its way out: its tables in every form, and the whole file."""

import csv
import json
import signal
import sqlite3
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.handles import Client, Service, wait_until

SHOP = """
    CREATE TABLE people(id INTEGER PRIMARY KEY, name TEXT, photo BLOB, weight REAL);
    INSERT INTO people VALUES (1, 'Ann', x'00ff', 61.5), (2, 'B|b', NULL, 1e999);
    CREATE TABLE "odd/na""me%"(x); INSERT INTO "odd/na""me%" VALUES ('kept');
    CREATE VIEW names AS SELECT name FROM people;
    CREATE VIRTUAL TABLE docs USING fts5(body); INSERT INTO docs VALUES ('one two'), ('three');
    CREATE TABLE log(id INTEGER PRIMARY KEY, what);
    CREATE TRIGGER noted AFTER INSERT ON people BEGIN INSERT INTO log(what) VALUES (new.name); END;
    CREATE INDEX by_name ON people(name);
"""


def get(client: Client, path: str, **headers: str) -> httpx.Response:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.http.get(path, headers={"X-Walkin-Session": client.token or "", **sent})


@pytest.fixture(scope="module")
def shop(service: Service) -> Client:
    client = service.client()
    assert client.sql(SHOP).status == 200
    return client


def opened(file: Path, content: bytes) -> "closing[sqlite3.Connection]":
    file.write_bytes(content)
    return closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True))


# --- tables ---


def test_a_table_comes_in_the_form_that_is_asked_for(shop: Client) -> None:
    as_json = get(shop, "/tables/people").json()
    assert as_json["rows"] == [
        [1, "Ann", {"base64": "AP8="}, 61.5],
        [2, "B|b", None, {"float": "Infinity"}],
    ]
    as_csv = get(shop, "/tables/people", Accept="text/csv")
    assert as_csv.headers["content-type"] == "text/csv; charset=utf-8"
    assert list(csv.reader(as_csv.text.splitlines()))[1] == ["1", "Ann", "base64:AP8=", "61.5"]
    as_lines = get(shop, "/tables/people", Accept="application/x-ndjson")
    assert [json.loads(line)["name"] for line in as_lines.text.splitlines()] == ["Ann", "B|b"]
    as_page = get(shop, "/tables/people", Accept="text/markdown")
    assert "B\\|b" in as_page.text


def test_views_and_virtual_tables_are_tables_too(shop: Client) -> None:
    assert get(shop, "/tables/names").json()["rows"] == [["Ann"], ["B|b"]]
    assert get(shop, "/tables/docs").json()["rows"] == [["one two"], ["three"]]


def test_a_name_may_hold_anything(shop: Client) -> None:
    name = quote('odd/na"me%', safe="")
    assert get(shop, f"/tables/{name}").json()["rows"] == [["kept"]]


@pytest.mark.parametrize(
    "name",
    ["peeple", "", "people;DROP TABLE people", 'x"; DROP TABLE people; --', "a\0b", "é" * 9000],
)
def test_a_table_that_is_not_there_changes_nothing(shop: Client, name: str) -> None:
    refused = get(shop, f"/tables/{quote(name, safe='')}")
    assert refused.status_code == 400
    assert refused.json()["code"] in ("unknown_table", "sql_error")
    assert len(get(shop, "/tables/people").json()["rows"]) == 2


def test_a_misspelt_table_is_told_with_its_nearest(shop: Client) -> None:
    assert get(shop, "/tables/peple").json()["suggestions"][0] == "people"


def test_a_long_table_comes_whole_as_lines(shop: Client) -> None:
    numbers = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 40000)"
    shop.sql(
        "CREATE TABLE IF NOT EXISTS long(i); DELETE FROM long;"
        f" INSERT INTO long {numbers} SELECT i FROM n"
    )
    lines = get(shop, "/tables/long", Accept="application/x-ndjson").text.splitlines()
    assert len(lines) == 40_000
    cut = get(shop, "/tables/long")
    assert len(cut.json()["rows"]) == 10_000
    assert cut.headers["x-walkin-truncated"] == "max_rows"


def test_the_services_own_table_stays_closed(service: Service) -> None:
    client = service.client()
    client.sql("CREATE TABLE t(a)")
    assert client.sql("INSERT INTO t VALUES (1)", Idempotency_Key="k").status == 200
    assert get(client, "/tables/sqlite_walkin_receipts").json()["code"] == "not_authorized"
    assert "receipts" not in get(client, "/tables/sqlite_schema").text


# --- the file ---


def test_the_file_is_a_database_with_everything_in_it(shop: Client, tmp_path: Path) -> None:
    answer = get(shop, "/database")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/vnd.sqlite3"
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert "walkin.db" in answer.headers["content-disposition"]
    with opened(tmp_path / "copy.db", answer.content) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        source = shop.sql("SELECT type, name, sql FROM sqlite_schema ORDER BY name").rows
        schema = copy.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY name").fetchall()
        assert [list(row) for row in schema] == source
        for table in ("people", "log", "names", "docs"):
            mine = copy.execute(f"SELECT count(*) FROM {table}").fetchall()
            assert [list(row) for row in mine] == shop.sql(f"SELECT count(*) FROM {table}").rows
        assert copy.execute("SELECT body FROM docs('two')").fetchall() == [("one two",)]
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        copy.execute("INSERT INTO people(name) VALUES ('Cyd')")
        assert copy.execute("SELECT what FROM log").fetchall()[-1] == ("Cyd",), "its trigger works"


def test_what_is_not_in_the_file_yet_is_in_the_copy(service: Service, tmp_path: Path) -> None:
    client = service.client()
    client.sql("CREATE TABLE t(a)")
    for number in range(3):
        client.sql("INSERT INTO t VALUES (?)", [number])
        with opened(tmp_path / f"{number}.db", get(client, "/database").content) as copy:
            assert copy.execute("SELECT count(*) FROM t").fetchall() == [(number + 1,)]
    assert client.sql("INSERT INTO t VALUES (9)").status == 200, "and it goes on"


def test_a_copy_that_the_caller_has_is_not_sent_again(shop: Client) -> None:
    first = get(shop, "/database")
    tag = first.headers["etag"]
    known = get(shop, "/database", If_None_Match=f'"other", {tag}')
    assert (known.status_code, known.content) == (304, b"")
    assert known.headers["etag"] == tag
    shop.sql("CREATE TABLE IF NOT EXISTS more(a); INSERT INTO more VALUES (random())")
    changed = get(shop, "/database", If_None_Match=tag)
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag


def test_an_empty_database_is_one_page(client: Client) -> None:
    client.sql("SELECT 1")
    assert len(get(client, "/database").content) == 4096


def test_without_a_token_there_is_nothing_to_be_had(service: Service) -> None:
    for token in (None, "wkn_wrong"):
        for path in ("/database", "/tables/t"):
            assert get(service.client(token), path).status_code == 404


def test_a_reader_of_an_r_tree_that_failed_is_in_nobodys_way(service: Service) -> None:
    client = service.client()
    client.sql("CREATE VIRTUAL TABLE r USING rtree(id, a, b); INSERT INTO r VALUES (1, 0, 1)")
    assert client.sql("INSERT INTO r VALUES (7, 0, 0), (8, 1, 0)").status == 400
    assert get(client, "/database").status_code == 200


def test_a_cell_killed_in_the_middle_is_not_taken_for_the_end(
    make_service: Callable[..., Service],
) -> None:
    service = make_service()
    client = service.client()
    client.sql("CREATE TABLE t(a); INSERT INTO t VALUES (zeroblob(1000000))")
    for _ in range(7):
        client.sql("INSERT INTO t SELECT zeroblob(1000000)")
    headers = {"X-Walkin-Session": client.token or ""}
    with client.http.stream("GET", "/database", headers=headers) as answer:
        pieces = answer.iter_raw(4096)
        next(pieces)
        service.signal(f"cell {client.instance}", signal.SIGKILL)
        with pytest.raises(httpx.RemoteProtocolError):
            for _ in pieces:
                pass
    wait_until(lambda: client.sql("SELECT count(*) FROM t").rows == [[8]], 5)
    assert "Traceback" not in service.log()


@pytest.fixture
def wide(service: Service) -> Client:
    client = service.client()
    client.sql("CREATE TABLE t(a)")
    for _ in range(4):
        client.sql("INSERT INTO t SELECT zeroblob(900000)")
    return client


@pytest.mark.alone
def test_megabytes_do_not_wait_for_acknowledgements(wide: Client) -> None:
    """With less kept by the kernel than a segment, each 64 KiB would take 40 ms."""
    took = []
    for _ in range(5):
        began = time.monotonic()
        assert len(get(wide, "/database").content) > 3_600_000
        took.append(time.monotonic() - began)
    assert statistics.median(took) < 0.6
