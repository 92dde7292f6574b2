"""Tokens for reading: what they reach, what they never do, how long they last, and GET /sql."""

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.handles import Client, Service, wait_until
from tests.hostile.sql import QUICK
from tests.live.test_read_only import WRITES, dump, furnished

SECRETS = """
    CREATE TABLE open(id INTEGER PRIMARY KEY, a); INSERT INTO open VALUES(1, 'shown');
    CREATE TABLE secret(id INTEGER PRIMARY KEY, s); INSERT INTO secret VALUES(1, 'hush');
    CREATE INDEX by_s ON secret(s);
    CREATE VIEW seen AS SELECT a FROM open; CREATE VIEW sneaky AS SELECT s FROM secret;
    CREATE VIRTUAL TABLE words USING fts5(w); INSERT INTO words VALUES('open words');
    CREATE VIRTUAL TABLE hidden_words USING fts5(w); INSERT INTO hidden_words VALUES('hush');
    CREATE VIRTUAL TABLE box USING rtree(id, a, b); INSERT INTO box VALUES(1, 2, 3);
    CREATE VIRTUAL TABLE echo USING fts5(s, content='secret', content_rowid='id');
    INSERT INTO echo(echo) VALUES('rebuild');
    CREATE VIRTUAL TABLE vocab USING fts5vocab(hidden_words, instance);
    CREATE TABLE child(p REFERENCES secret(id)); ANALYZE
"""


def narrow(client: Client, **said: Any) -> httpx.Response:
    headers = {"X-Walkin-Session": client.token or ""}
    return client.http.post("/session/tokens", json={"scope": "read"} | said, headers=headers)


def reader(service: Service, client: Client, **said: Any) -> Client:
    """A caller with a token for reading."""
    made = narrow(client, **said)
    assert made.status_code == 201, made.text
    return service.client(made.json()["token"])


def by_url(client: Client, path: str = "/sql", **parameters: Any) -> httpx.Response:
    return client.http.get(path, params=parameters)


@pytest.fixture(scope="module")
def owner(service: Service) -> Client:
    return furnished(service)


@pytest.fixture(scope="module")
def before(owner: Client) -> list[Any]:
    return dump(owner)


@pytest.fixture(scope="module")
def guest(service: Service, owner: Client) -> Client:
    return reader(service, owner)


# --- what it says of itself ---


def test_a_token_tells_what_it_is_for(service: Service, owner: Client) -> None:
    whole = owner.http.get("/session", headers={"X-Walkin-Session": owner.token or ""}).json()
    told = narrow(owner, ttl_s=60, tables=["t", "u"]).json()
    assert told["token"].startswith("wkr_")
    assert (told["scope"], told["only_tables"]) == ("read", ["t", "u"])
    assert 58 <= told["seconds_left"] <= 61
    assert told["expires"] < whole["expires"]
    seen = owner.http.get("/session", headers={"X-Walkin-Session": told["token"]}).json()
    assert {name: seen[name] for name in ("scope", "only_tables", "expires", "created")} == {
        name: told[name] for name in ("scope", "only_tables", "expires", "created")
    }
    assert narrow(owner).json()["expires"] == whole["expires"], "as long as its parent"
    assert narrow(owner, ttl_s=3600).json()["expires"] == whole["expires"], "and no longer"


@pytest.mark.parametrize(
    ("said", "option"),
    [
        ({"scope": "full"}, "scope"),
        ({"scope": None}, "scope"),
        ({"ttl_s": 0}, "ttl_s"),
        ({"ttl_s": 3601}, "ttl_s"),
        ({"tables": "t"}, "tables"),
        ({"tables": [1]}, "tables"),
        ({"tables": [""]}, "tables"),
        ({"tables": ["x" * 1100]}, "tables"),
    ],
)
def test_a_wrong_option_is_named(owner: Client, said: dict[str, Any], option: str) -> None:
    refused = narrow(owner, **said)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_option")
    assert refused.json()["option"] == option


# --- what it reaches ---


def test_it_reads_all_that_there_is(guest: Client) -> None:
    assert guest.sql("SELECT count(*) FROM u").rows == [[2]]
    assert guest.sql("SELECT a FROM f WHERE f MATCH 'two'").rows == [["one two"]]
    headers = {"X-Walkin-Session": guest.token or ""}
    assert guest.http.get("/tables/u", headers=headers).json()["rows"][0][0] == 1
    assert len(guest.http.get("/schema", headers=headers).json()["tables"]) > 2
    assert guest.http.get("/database", headers=headers).content[:15] == b"SQLite format 3"


@pytest.mark.parametrize("sql", WRITES)
def test_it_writes_nothing(owner: Client, guest: Client, before: list[Any], sql: str) -> None:
    assert guest.sql(sql).status == 400
    assert guest.call(sql, readonly=False).status == 400, "whatever its holder says"
    assert guest.http.get("/sql", params={"token": guest.token, "sql": sql}).status_code == 400
    assert dump(owner) == before


def test_no_attack_by_sql_changes_anything(owner: Client, guest: Client, before: list[Any]) -> None:
    for name, case in QUICK.items():
        for sql in [case.sql] if isinstance(case.sql, str) else case.sql:
            answer = guest.sql(sql)
            assert answer.status in (200, 400, 408, 413, 507), (name, answer)
    assert dump(owner) == before


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        ("DELETE", "/session", None),
        ("PATCH", "/session", {"extend_s": 1}),
        ("POST", "/session/fork", {}),
        ("POST", "/session/tokens", {"scope": "read"}),
    ],
)
def test_what_takes_a_full_token_refuses_it(
    guest: Client, method: str, path: str, said: Any
) -> None:
    refused = guest.http.request(
        method, path, json=said, headers={"X-Walkin-Session": guest.token or ""}
    )
    assert (refused.status_code, refused.json()["code"]) == (403, "token_too_narrow")


# --- some tables ---


@pytest.fixture(scope="module")
def keeper(service: Service) -> Client:
    client = service.client()
    assert client.sql(SECRETS).status == 200
    return client


@pytest.fixture(scope="module")
def visitor(service: Service, keeper: Client) -> Client:
    return reader(service, keeper, tables=["Open", "seen", "words", "box", "sneaky", "echo"])


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("SELECT * FROM open", [[1, "shown"]]),
        ("SELECT count(*) FROM OPEN", [[1]]),
        ("SELECT * FROM seen", [["shown"]]),
        ("SELECT w FROM words WHERE words MATCH 'open'", [["open words"]]),
        ("SELECT id FROM box WHERE a < 3", [[1]]),
        ("WITH c AS (SELECT a FROM open) SELECT a FROM c", [["shown"]]),
        ("SELECT name FROM pragma_table_info('open')", None),
        ("PRAGMA table_info(open)", [[0, "id", "INTEGER", 0, None, 1], [1, "a", "", 0, None, 0]]),
        ("SELECT 1 + 1", [[2]]),
    ],
)
def test_the_tables_that_are_named_can_be_read(visitor: Client, sql: str, rows: Any) -> None:
    answer = visitor.sql(sql)
    if rows is None:
        assert answer.status == 400
    else:
        assert answer.rows == rows


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM secret",
        "SELECT count(*) FROM secret",
        "SELECT 1 FROM secret",
        "SELECT rowid FROM secret",
        "SELECT s FROM main.secret",
        'SELECT s FROM "SECRET"',
        "SELECT * FROM sneaky",
        "WITH open AS (SELECT s FROM secret) SELECT s FROM open",
        "WITH sneaky(s) AS (SELECT s FROM secret) SELECT * FROM sneaky",
        "SELECT (SELECT s FROM secret) FROM open",
        "SELECT a FROM open WHERE a IN (SELECT s FROM secret)",
        "SELECT a FROM open WHERE EXISTS (SELECT 1 FROM secret WHERE s LIKE 'h%')",
        "SELECT a FROM open UNION ALL SELECT s FROM secret",
        "SELECT * FROM open JOIN secret USING (id)",
        "SELECT * FROM echo",
        "SELECT s FROM echo WHERE echo MATCH 'hush'",
        "SELECT * FROM hidden_words",
        "SELECT * FROM hidden_words_content",
        "SELECT * FROM hidden_words_data",
        "SELECT * FROM vocab",
        "SELECT * FROM sqlite_schema",
        "SELECT sql FROM sqlite_master",
        "SELECT * FROM sqlite_stat1",
        "SELECT * FROM sqlite_sequence",
        "SELECT * FROM dbstat",
        "SELECT * FROM pragma_table_list",
        "SELECT * FROM pragma_table_info('secret')",
        "SELECT * FROM pragma_table_xinfo('secret')",
        "SELECT * FROM pragma_index_info('by_s')",
        "SELECT * FROM pragma_foreign_key_check",
        "PRAGMA table_info(secret)",
        "PRAGMA table_xinfo(secret)",
        "PRAGMA table_list",
        "PRAGMA index_list(secret)",
        "PRAGMA index_info(by_s)",
        "PRAGMA index_xinfo(by_s)",
        "PRAGMA foreign_key_list(child)",
        "PRAGMA foreign_key_check",
        "PRAGMA integrity_check",
        "PRAGMA quick_check(secret)",
        "PRAGMA database_list",
        "EXPLAIN SELECT * FROM secret",
        "EXPLAIN QUERY PLAN SELECT * FROM secret",
        "EXPLAIN QUERY PLAN SELECT * FROM sneaky",
        "SELECT s FROM secret ORDER BY (SELECT a FROM open)",
        "INSERT INTO open VALUES(2, 'x')",
        "SELECT snippet(hidden_words, 0, '', '', '', 5) FROM hidden_words",
    ],
)
def test_nothing_else_is_reached_or_told(keeper: Client, visitor: Client, sql: str) -> None:
    if not sql.startswith("INSERT"):
        keeper.sql(sql)  # what has been prepared for others is no way in
    for options in ({}, {"each": True}, {"stats": True}):
        answer = visitor.call(sql, **options)
        assert answer.status == 400, answer.json
        assert "hush" not in json.dumps(answer.json)
    plan = visitor.call(sql, explain=True)
    assert not re.search("hush|secret|by_s", json.dumps(plan.json)), plan.json


@pytest.mark.parametrize("sql", ["SELECT s FROM secre", "SELECT secre FROM open", "SELECT x.s"])
def test_no_error_helps_with_the_names_of_others(visitor: Client, sql: str) -> None:
    said = visitor.sql(sql).json
    assert "secret" not in json.dumps(said).replace(sql, "")
    assert not said.keys() & {"suggestions", "tables", "hint"}


def test_other_paths_keep_to_the_tables_too(visitor: Client) -> None:
    headers = {"X-Walkin-Session": visitor.token or ""}
    get = visitor.http.get
    assert get("/tables/open", headers=headers).json()["rows"] == [[1, "shown"]]
    assert get("/tables/secret", headers=headers).status_code == 400
    schema = get("/schema", headers=headers)
    assert [one["name"] for one in schema.json()["tables"]] == ["open", "words", "box", "echo"]
    assert [one["name"] for one in schema.json()["views"]] == ["seen", "sneaky"]
    assert "by_s" not in schema.text
    for path in ("/database", "/dump.sql"):
        refused = get(path, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (403, "token_too_narrow")


# --- how long ---


def test_it_lasts_as_long_as_was_said(service: Service) -> None:
    client = service.client()
    client.sql("CREATE TABLE t(a)")
    short, long = reader(service, client, ttl_s=1), reader(service, client)
    assert short.sql("SELECT * FROM t").rows == []
    wait_until(lambda: short.sql("SELECT 1").code == "instance_expired", 5)
    headers = {"X-Walkin-Session": short.token or ""}
    for path in ("/session", "/schema", "/tables/t", "/database"):
        assert short.http.get(path, headers=headers).status_code == 404, path
    assert long.sql("SELECT * FROM t").rows == []


def test_it_dies_with_its_parent(make_service: Callable[..., Service]) -> None:
    service = make_service()
    client = service.client()
    client.sql("CREATE TABLE t(a)")
    guest = reader(service, client)
    client.http.delete("/session", headers={"X-Walkin-Session": client.token or ""})
    assert guest.sql("SELECT 1").code == "instance_expired"
    assert by_url(guest, token=guest.token, sql="SELECT 1").status_code == 404


def test_another_node_or_key_does_not_know_it(make_service: Callable[..., Service]) -> None:
    one, other = make_service(), make_service()
    client = one.client()
    client.sql("SELECT 1")
    guest = reader(one, client)
    assert other.client(guest.token).sql("SELECT 1").code == "instance_not_found"


# --- GET /sql ---


@pytest.mark.parametrize(
    ("path", "accept", "content_type", "body"),
    [
        ("/sql", None, "application/json", '{"columns":["a"],"rows":[[1],[2],[3]]'),
        ("/sql.json", "text/csv", "application/json", '{"columns":["a"]'),
        ("/sql.csv", None, "text/csv; charset=utf-8", '"a"\r\n1\r\n2\r\n3\r\n'),
        ("/sql", "text/csv", "text/csv; charset=utf-8", '"a"\r\n1\r\n2\r\n3\r\n'),
        ("/sql.md", None, "text/markdown; charset=utf-8", "| a |"),
        ("/sql.ndjson", None, "application/x-ndjson", '{"a":1}\n{"a":2}'),
    ],
)
def test_a_link_is_enough(
    guest: Client, path: str, accept: str | None, content_type: str, body: str
) -> None:
    headers = {"Accept": accept} if accept else {}
    answer = guest.http.get(
        f"{path}?sql={quote('SELECT a FROM t ORDER BY a')}&token={guest.token}", headers=headers
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == content_type
    assert answer.text.startswith(body)


def test_parameters_are_what_a_body_has(guest: Client) -> None:
    answer = by_url(
        guest,
        token=guest.token,
        sql="SELECT :a AS x, :b AS y UNION ALL SELECT 2, 3",
        args='{"a": 9007199254740993, "b": "s"}',
        rows="objects",
        integers="string",
        max_rows="1",
    ).json()
    assert answer["rows"] == [{"x": "9007199254740993", "y": "s"}]
    assert answer["truncated"]


def test_the_token_may_be_in_the_header_and_a_full_one_only_there(
    owner: Client, guest: Client, before: list[Any]
) -> None:
    for token in (owner.token, guest.token):
        headers = {"X-Walkin-Session": token or ""}
        answer = owner.http.get("/sql", params={"sql": "SELECT 1"}, headers=headers)
        assert answer.json()["rows"] == [[1]]
        refused = owner.http.get("/sql", params={"sql": "DELETE FROM u"}, headers=headers)
        assert refused.json()["code"] == "read_only", "a GET is safe, whoever asks"
    refused = by_url(owner, token=owner.token, sql="SELECT 1")
    assert (refused.status_code, refused.json()["code"]) == (403, "token_in_url")
    assert owner.token not in refused.text
    assert dump(owner) == before


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("sql=SELECT+1", 404, "instance_not_found"),
        ("token={}", 400, "missing_sql"),
        ("token={}&sql=", 400, "missing_sql"),
        ("token={}&token={}&sql=SELECT+1", 404, "instance_not_found"),
        ("token=wkr_x&sql=SELECT+1", 404, "instance_not_found"),
        ("token={}&sql=SELECT+1&sql=SELECT+2", 400, "invalid_option"),
        ("token={}&sql=SELECT+1&max_rows=x", 400, "invalid_option"),
        ("token={}&sql=SELECT+1&max_rows=0", 400, "invalid_option"),
        ("token={}&sql=SELECT+1&args=x", 400, "invalid_args"),
        ("token={}&sql=SELECT+1&colour=x", 400, "unknown_field"),
        ("token={}&sql=SELECT+%ff%00", 400, "sql_error"),
        ("token={}&sql=" + "x" * 9000, 413, "body_too_large"),
    ],
)
def test_what_is_wrong_with_a_link_is_said(
    guest: Client, query: str, status: int, code: str
) -> None:
    refused = guest.http.get("/sql?" + query.replace("{}", guest.token or ""))
    assert (refused.status_code, refused.json()["code"]) == (status, code), refused.text


def test_a_suffix_that_there_is_not_is_no_form(guest: Client) -> None:
    refused = by_url(guest, "/sql.xml", token=guest.token, sql="SELECT 1")
    assert (refused.status_code, refused.json()["code"]) == (406, "not_acceptable")


def test_no_line_of_the_log_has_a_token_or_sql_of_a_link(
    make_service: Callable[..., Service],
) -> None:
    service = make_service()
    client = service.client()
    client.sql("CREATE TABLE t(a)")
    guest = reader(service, client)
    for path in ("/sql", "/sql.csv", "/sql.%3Fxml"):
        by_url(guest, path, token=guest.token, sql="SELECT 'whisper'")
    wait_until(lambda: service.log().count("path=/sql.{form}") == 2, 5)
    assert (guest.token or "") not in service.log()
    assert "whisper" not in service.log()
