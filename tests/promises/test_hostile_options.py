"""The promise: no option, form or key is a way around a wall, or to an answer that is not true."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.handles import Answer, Client, Service
from tests.wire import besiege

#: Times are judged here.
pytestmark = pytest.mark.alone

NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {})"
TEXTS = NUMBERS + " SELECT i, printf('%050d', i) AS text FROM n"


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """One whose log has nothing of other tests in it."""
    with besiege() as started:
        yield started


@pytest.fixture
def kept(client: Client) -> Client:
    assert client.sql("CREATE TABLE t(x)").status == 200
    return client


def ask(client: Client, sql: str, headers: dict[str, str] | None = None, **options: Any) -> Answer:
    body = json.dumps({"sql": sql, **options}).encode()
    return client.post(
        body, **{name.replace("-", "_"): text for name, text in (headers or {}).items()}
    )


# --- one transaction is one transaction ---


@pytest.mark.parametrize("lead", ["", ";", " ; ;", "/* a */;", "-- a\n;"])
@pytest.mark.parametrize("word", ["COMMIT", "END", "ROLLBACK", "BEGIN"])
def test_a_leading_semicolon_ends_no_transaction(kept: Client, lead: str, word: str) -> None:
    sql = f"{lead}{word};INSERT INTO t VALUES (1);SELECT nope"
    for how in ({"atomic": True}, {"headers": {"Idempotency-Key": "k"}}):
        for _ in range(2):
            refused = ask(kept, sql, **how)
            assert (refused.status, refused.code) == (400, "not_authorized"), refused
    assert kept.sql("SELECT * FROM t").rows == []


# --- what was cut is told ---


@pytest.mark.parametrize("accept", ["text/csv", "application/x-ndjson"])
@pytest.mark.parametrize("how", [{"max_rows": 10_000}, {"atomic": True}, {"key": "k"}])
def test_a_cut_answer_in_lines_says_so_however_long(
    kept: Client, accept: str, how: dict[str, Any]
) -> None:
    headers = {"Accept": accept}
    options = dict(how)
    if key := options.pop("key", None):
        headers["Idempotency-Key"] = key
    cut = ask(kept, TEXTS.format(20_000), headers, **options)
    if cut.status == 200:
        assert cut.headers["x-walkin-truncated"] in ("max_rows", "max_bytes")
    else:
        assert cut.code == "invalid_option", "too long to be kept under a key"


def test_rows_of_a_write_in_lines_are_cut_visibly(kept: Client) -> None:
    sql = NUMBERS.format(20_000) + " INSERT INTO t SELECT printf('%050d', i) FROM n RETURNING x"
    cut = ask(kept, sql, {"Accept": "text/csv"})
    assert (cut.status, cut.headers["x-walkin-truncated"]) == (200, "max_rows")


def test_a_long_error_is_an_error_in_every_form(kept: Client) -> None:
    for accept in ("application/json", "text/csv", "text/markdown"):
        refused = ask(kept, "SELECT json_extract('{}', printf('%0300000d', 1))", {"Accept": accept})
        assert (refused.status, refused.headers["content-type"]) == (400, "application/json")
        assert len(refused.text) < 8192


# --- nothing is too long for an answer ---

WIDE = 'CREATE VIEW v AS SELECT 1 AS "{}"'
TOO_MUCH = {
    "results together": ([], ";".join(["SELECT printf('%01000000d', 1)"] * 6), {"each": True}),
    "an error that grows": (
        [],
        "SELECT json_extract('{}', replace(hex(zeroblob(400000)), '0', char(1)))",
        {},
    ),
    "a plan that is deep": (
        ["CREATE TABLE d(a)"],
        "SELECT * FROM " + "(SELECT DISTINCT a FROM " * 130 + "d" + ")" * 130,
        {"explain": True},
    ),
    "names in a page": (
        [WIDE.format("|" * 3700)],
        "SELECT " + ", ".join(["v.*"] * 990) + " FROM v",
        {"headers": {"Accept": "text/markdown"}},
    ),
    "names alike": (
        [WIDE.format("n" * 7000)],
        "SELECT " + ", ".join(["v.*"] * 990) + " FROM v",
        {"headers": {"Accept": "text/csv"}},
    ),
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_too_much_is_refused_and_the_cell_lives(
    service: Service, client: Client, name: str
) -> None:
    setup, sql, options = TOO_MUCH[name]
    for one in ["SELECT 1", *setup]:
        assert client.sql(one).status == 200
    cell = service.cell(client)
    began = time.monotonic()
    answer = ask(client, sql, **options)
    assert answer.status in (200, 400), answer
    assert time.monotonic() - began < 2.5
    assert client.sql("SELECT 1").rows == [[1]]
    assert service.cell(client) == cell


# --- nobody pays for another's reading ---


@pytest.mark.parametrize("leaves", [False, True], ids=["reads nothing", "leaves"])
def test_a_reader_of_a_long_answer_costs_no_other_caller_his_call(
    make_service: Callable[..., Service], leaves: bool
) -> None:
    service = make_service()
    client = service.client()
    client.sql("CREATE TABLE t(x)")
    endless = NUMBERS.format("i + 1") + " SELECT i, hex(zeroblob(400)) FROM n"
    others = [service.client(client.token) for _ in range(4)]
    headers = {"X-Walkin-Session": client.token or "", "Accept": "text/csv"}
    with ThreadPoolExecutor(8) as callers:
        calls = [callers.submit(other.sql, "INSERT INTO t VALUES (1)") for other in others[:2]]
        with client.http.stream("POST", "/sql", json={"sql": endless}, headers=headers) as answer:
            calls += [callers.submit(other.sql, "INSERT INTO t VALUES (1)") for other in others[2:]]
            assert answer.status_code == 200
            if not leaves:
                time.sleep(2.6)  # its time is over
            else:
                next(answer.iter_raw(1000))
        answers = [call.result(20) for call in calls]
    assert {answer.status for answer in answers} <= {200, 503}, answers
    done = sum(answer.status == 200 for answer in answers)
    assert client.sql("SELECT count(*) FROM t").rows == [[done]]


# --- nothing takes long but SQL ---


def test_thousands_of_parameters_in_a_few_bytes_are_no_work(client: Client) -> None:
    client.sql("SELECT 1")
    for sql, args in (("?32766;" * 1000, {"a": 1}), ("SELECT ?;" + "?32766;" * 1000, [])):
        began = time.monotonic()
        refused = ask(client, sql, args=args)
        assert (refused.status, refused.code) in ((400, "invalid_args"), (400, "syntax_error"))
        assert time.monotonic() - began < 0.5


def test_a_typo_among_thousands_of_long_names_is_told_in_time(client: Client) -> None:
    for hundred in range(20):
        views = [
            f"CREATE VIEW {'ab' * 40}{hundred}_{one}{'ba' * 5} AS SELECT 1;" for one in range(50)
        ]
        assert client.sql("".join(views)).status == 200
    began = time.monotonic()
    refused = client.sql(f"SELECT * FROM {'ba' * 45}")
    assert refused.code == "unknown_table"
    assert time.monotonic() - began < 0.7


def test_a_schema_that_takes_long_to_be_looked_into_is_told_in_time(
    service: Service, client: Client
) -> None:
    client.sql("CREATE TABLE d(a); CREATE VIEW v0 AS SELECT a FROM d")
    for level in range(1, 6):
        arms = " UNION ALL ".join([f"SELECT a FROM v{level - 1}"] * 4)
        client.sql(f"CREATE VIEW v{level} AS {arms}")
    for copy in range(15):
        client.sql(f"CREATE VIEW w{copy} AS SELECT a FROM v5")
    cell = service.cell(client)
    began = time.monotonic()
    answer = client.http.get("/schema", headers={"X-Walkin-Session": client.token or ""})
    assert answer.status_code == 200
    assert len(answer.json()["views"]) == 21
    assert time.monotonic() - began < 2.2
    assert service.cell(client) == cell


# --- nothing stays behind ---


def test_a_read_only_call_makes_the_next_no_slower(client: Client) -> None:
    client.sql("CREATE TABLE wide(" + ", ".join(f"c{n}" for n in range(300)) + ")")
    assert ask(client, ";" * 8000 + "SELEC", readonly=True).status == 400
    began = time.monotonic()
    assert (
        client.sql("SELECT " + ", ".join(f"c{n}" for n in range(300)) + " FROM wide").status == 200
    )
    assert time.monotonic() - began < 0.3


def test_kept_answers_cannot_be_guessed_by_the_schema(kept: Client) -> None:
    assert ask(kept, "SELECT 'secret'", {"Idempotency-Key": "k"}).status == 200
    for name, word in (("a", "secret"), ("b", "sekret")):
        kept.sql(
            f"CREATE VIEW o{name} AS SELECT number AS id, body AS b FROM sqlite_walkin_receipts"
            f" WHERE instr(body, '{word}')"
        )
        kept.sql(
            f"CREATE VIRTUAL TABLE x{name} USING fts5(b, content='o{name}', content_rowid='id')"
        )
    told = kept.http.get("/schema", headers={"X-Walkin-Session": kept.token or ""}).json()
    counts = [one.get("rows") for one in told["tables"] if one["name"] in ("xa", "xb")]
    assert len(set(counts)) <= 1, counts


def test_an_error_under_stats_ends_the_counting(kept: Client) -> None:
    assert ask(kept, "SELECT 1; SELECT nope", stats=True).status == 400
    counted = ask(kept, "SELECT 1", stats=True)
    assert counted.json["stats"]["rows_scanned"] == 0


def test_a_stream_that_is_left_open_is_not_an_error_of_ours(service: Service, kept: Client) -> None:
    headers = {"X-Walkin-Session": kept.token or "", "Accept": "text/csv"}
    body = {"sql": TEXTS.format(200_000)}
    with kept.http.stream("POST", "/sql", json=body, headers=headers) as answer:
        assert isinstance(answer, httpx.Response)
    assert kept.sql("SELECT 1").rows == [[1]]
