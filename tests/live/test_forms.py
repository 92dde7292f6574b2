"""The forms of an answer over HTTP: which one a caller gets, and what is in it."""

import csv
import io
import json
from collections.abc import Callable

import pytest

from tests.handles import Client, Service

CSV, NDJSON, MARKDOWN = "text/csv", "application/x-ndjson", "text/markdown"
FORMS = [CSV, NDJSON, MARKDOWN]
CONTENT_TYPES = {
    "application/json": "application/json",
    NDJSON: NDJSON,
    CSV: "text/csv; charset=utf-8",
    MARKDOWN: "text/markdown; charset=utf-8",
}
NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {}) SELECT i FROM n"
#: One value of each storage class, and those that are written in a way of their own.
CLASSES = """SELECT 1 AS i, 9223372036854775807 AS most, 1.5 AS f, 2.0 AS whole, -0.0 AS zero,
    1e999 AS inf, -1e999 AS least, 'a "b", c' AS text, '' AS empty, NULL AS none, x'00ff' AS blob
"""


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        *((form, form) for form in CONTENT_TYPES),
        ("*/*", "application/json"),
        ("text/*", CSV),
        ("application/*", "application/json"),
        ("application/jsonl", NDJSON),
        ("TEXT/CSV; header=present", CSV),
        ("text/html, text/markdown;q=0.9, */*;q=0.1", MARKDOWN),
        ("text/csv;q=0.5, application/x-ndjson;q=0.6", NDJSON),
        ("*/*, application/json;q=0", NDJSON),
        ("", "application/json"),
    ],
)
def test_the_caller_gets_the_form_he_likes_best(client: Client, accept: str, form: str) -> None:
    answer = client.call("SELECT 1 AS one", {"Accept": accept})
    assert answer.status == 200
    assert answer.headers["content-type"] == CONTENT_TYPES[form]
    assert answer.headers["vary"] == "Accept"


@pytest.mark.parametrize("accept", ["text/html", "text/csv;q=0", "application/xml, image/*", "x"])
def test_a_form_that_there_is_not_is_refused_before_anything_is_made(
    client: Client, accept: str
) -> None:
    answer = client.call("SELECT 1", {"Accept": accept})
    assert (answer.status, answer.code) == (406, "not_acceptable")
    assert answer.headers["content-type"] == "application/json"
    assert all(form in answer.json["hint"] for form in CONTENT_TYPES)
    assert client.token is None


@pytest.mark.parametrize("accept", FORMS)
@pytest.mark.parametrize(
    ("sql", "args", "status"),
    [
        ("SELEC", None, 400),
        ("SELECT ?", [], 400),
        ("ATTACH 'x' AS y", None, 400),
        ("", None, 400),
        ("SELECT abs(-9223372036854775808)", None, 400),
        ("CREATE TABLE t(a); BEGIN; SELECT 1", None, 400),
    ],
)
def test_errors_stay_json(
    client: Client, accept: str, sql: str, args: list[int] | None, status: int
) -> None:
    answer = client.sql(sql, args, Accept=accept)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    assert {"error", "code", "request_id"} <= answer.json.keys()


def test_a_timeout_before_the_first_piece_is_json(make_service: Callable[..., Service]) -> None:
    client = make_service(query_timeout_ms=100).client()
    for accept in FORMS:
        answer = client.call(f"SELECT count(*) FROM ({NUMBERS.format(-1)})", {"Accept": accept})
        assert (answer.status, answer.code) == (408, "query_timeout")


def test_csv_has_every_storage_class(client: Client) -> None:
    answer = client.call(CLASSES, {"Accept": CSV})
    assert answer.text == (
        '"i","most","f","whole","zero","inf","least","text","empty","none","blob"\r\n'
        '1,9223372036854775807,1.5,2.0,-0.0,Infinity,-Infinity,"a ""b"", c","",,base64:AP8=\r\n'
    )


def test_csv_is_what_a_common_reader_reads(client: Client) -> None:
    texts = ["a,b", 'say "x"', "two\nlines", "two\r\nlines", " ", "", "ümläut 🙂"]
    answer = client.call(
        "SELECT value, key FROM json_each(?)", {"Accept": CSV}, args=[json.dumps(texts)]
    )
    read = list(csv.reader(io.StringIO(answer.text, newline=""), strict=True))
    assert read == [["value", "key"], *([text, str(at)] for at, text in enumerate(texts))]


def test_ndjson_has_every_storage_class(client: Client) -> None:
    answer = client.call(CLASSES, {"Accept": NDJSON})
    (line,) = answer.text.splitlines()
    assert json.loads(line) == {
        "i": 1,
        "most": 2**63 - 1,
        "f": 1.5,
        "whole": 2.0,
        "zero": 0.0,
        "inf": {"float": "Infinity"},
        "least": {"float": "-Infinity"},
        "text": 'a "b", c',
        "empty": "",
        "none": None,
        "blob": {"base64": "AP8="},
    }
    assert '"whole":2.0,"zero":-0.0' in line
    assert answer.text.endswith("\n")


def test_markdown_has_every_storage_class(client: Client) -> None:
    _, rule, row = client.call(CLASSES, {"Accept": MARKDOWN}).text.splitlines()
    assert rule == "|" + "---|" * 11
    assert row == (
        "| 1 | 9223372036854775807 | 1.5 | 2.0 | -0.0 | Infinity | -Infinity |"
        ' a "b", c |  | NULL | base64:AP8= |'
    )


def test_markdown_keeps_a_row_on_one_line(client: Client) -> None:
    args = ["a|b", "one\ntwo\r\nthree\rfour", "back\\slash"]
    head, _, *rows = client.call(
        "SELECT ? AS 'x|y', ?, ?", {"Accept": MARKDOWN}, args=args
    ).text.split("\n")
    assert head.startswith("| x\\|y |")
    assert rows == ["| a\\|b | one<br>two<br>three<br>four | back\\\\slash |", ""]


@pytest.mark.parametrize(
    ("accept", "text"),
    [
        (CSV, '"rows_affected"\r\n2\r\n'),
        (NDJSON, '{"rows_affected":2}\n'),
        (MARKDOWN, "| rows_affected |\n|---|\n| 2 |\n"),
    ],
)
def test_what_returns_no_columns_says_how_many_rows_it_changed(
    client: Client, accept: str, text: str
) -> None:
    sql = "CREATE TABLE t(a); INSERT INTO t VALUES(1), (2)"
    assert client.call(sql, {"Accept": accept}).text == text


@pytest.mark.parametrize(
    ("accept", "text"),
    [(CSV, '"a","a_2"\r\n'), (NDJSON, ""), (MARKDOWN, "| a | a_2 |\n|---|---|\n")],
)
def test_no_rows_leave_the_names_where_there_is_a_place(
    client: Client, accept: str, text: str
) -> None:
    answer = client.call("SELECT 1 AS a, 2 AS a WHERE 0", {"Accept": accept})
    assert (answer.status, answer.text) == (200, text)


@pytest.mark.parametrize("accept", FORMS)
def test_a_cut_is_told_in_a_header(client: Client, accept: str) -> None:
    cut = client.call(NUMBERS.format(50), {"Accept": accept}, max_rows=5)
    assert cut.headers["x-walkin-truncated"] == "max_rows"
    cut = client.call(NUMBERS.format(50), {"Accept": accept}, max_bytes=20)
    assert cut.headers["x-walkin-truncated"] == "max_bytes"
    whole = client.call(NUMBERS.format(5), {"Accept": accept}, max_rows=5)
    assert "x-walkin-truncated" not in whole.headers


def test_a_markdown_table_is_short_unless_more_is_asked_for(client: Client) -> None:
    short = client.call(NUMBERS.format(300), {"Accept": MARKDOWN})
    *lines, empty, last = short.text.splitlines()
    assert lines[-1] == "| 200 |"
    assert (empty, last[:34]) == ("", "*Cut by max_rows: 200 of 300 rows;")
    assert last.endswith("*")
    assert short.headers["x-walkin-truncated"] == "max_rows"
    more = client.call(NUMBERS.format(300), {"Accept": MARKDOWN}, max_rows=300)
    assert more.text.endswith("| 300 |\n")
    wide = client.call(
        "SELECT printf('%0900d', value) FROM json_each('[1,2,3]'), (VALUES(1),(2),(3),(4),(5),(6),"
        "(7),(8),(9),(10),(11),(12),(13),(14),(15))",
        {"Accept": MARKDOWN},
    )
    assert wide.headers["x-walkin-truncated"] == "max_bytes"
    assert "*Cut by max_bytes: 36 of 45 rows;" in wide.text
    cell = client.call("SELECT printf('%01500d', 1)", {"Accept": MARKDOWN})
    assert "… (500 bytes more)" in cell.text
