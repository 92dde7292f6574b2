"""GET /schema: what a database is made of, as an object and as a page to read."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.handles import Answer, Client, Service

MADE = """
    CREATE TABLE a(id INTEGER PRIMARY KEY, b TEXT NOT NULL DEFAULT 'x', c AS (b || '!') VIRTUAL,
        d AS (id + 1) STORED, e REFERENCES a(id) ON DELETE CASCADE);
    CREATE UNIQUE INDEX i1 ON a(b); CREATE INDEX i2 ON a(b) WHERE b <> '';
    CREATE INDEX i3 ON a(lower(b), e);
    CREATE TRIGGER tr AFTER INSERT ON a BEGIN SELECT 1; END;
    CREATE TABLE w(x, y, PRIMARY KEY(y, x)) WITHOUT ROWID;
    CREATE TABLE s(x INT, y ANY) STRICT;
    CREATE TABLE k(x, y, FOREIGN KEY(x, y) REFERENCES w ON UPDATE SET NULL);
    CREATE VIRTUAL TABLE f USING fts5(t, content='');
    CREATE VIRTUAL TABLE r USING rtree(id, low, high);
    CREATE VIEW v AS SELECT id, b AS bb FROM a;
    INSERT INTO a(b) VALUES('p'), ('q'); INSERT INTO r VALUES(1, 0, 1);
"""


def see(client: Client, accept: str = "application/json") -> Answer:
    headers = {"X-Walkin-Session": client.token or "", "Accept": accept}
    return Answer(client.http.get("/schema", headers=headers))


def relations(client: Client, kind: str = "tables") -> dict[str, Any]:
    answer = see(client)
    assert answer.status == 200, answer
    return {one["name"]: one for one in answer.json[kind]}


@pytest.fixture(scope="module")
def made(service: Service) -> Client:
    client = service.client()
    assert client.sql(MADE).status == 200
    return client


def test_an_object_has_everything_in_the_order_in_which_it_was_made(made: Client) -> None:
    answer = see(made)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["vary"] == "Accept"
    assert sorted(answer.json) == ["tables", "views"]
    assert list(relations(made)) == ["a", "w", "s", "k", "f", "r"], "and no table of FTS5's own"
    assert list(relations(made, "views")) == ["v"]


def test_columns_say_what_they_are(made: Client) -> None:
    assert relations(made)["a"]["columns"] == [
        {"name": "id", "type": "INTEGER", "primary_key": 1},
        {"name": "b", "type": "TEXT", "not_null": True, "default": "'x'"},
        {"name": "c", "type": "", "generated": "virtual"},
        {"name": "d", "type": "", "generated": "stored"},
        {"name": "e", "type": ""},
    ]
    keys = {one["name"]: one["primary_key"] for one in relations(made)["w"]["columns"]}
    assert keys == {"x": 2, "y": 1}
    assert [one["type"] for one in relations(made)["s"]["columns"]] == ["INT", "ANY"]
    assert [one["name"] for one in relations(made)["f"]["columns"]] == ["t"]
    assert [one["name"] for one in relations(made)["r"]["columns"]] == ["id", "low", "high"]
    assert relations(made, "views")["v"]["columns"] == [
        {"name": "id", "type": "INTEGER"},
        {"name": "bb", "type": "TEXT"},
    ]


def test_indexes_triggers_and_foreign_keys_are_with_their_table(made: Client) -> None:
    about = relations(made)["a"]
    found = [(one["name"], one["columns"], one["unique"]) for one in about["indexes"]]
    assert found == [("i1", ["b"], True), ("i2", ["b"], False), ("i3", [None, "e"], False)]
    assert about["indexes"][1]["sql"].endswith("WHERE b <> ''")
    assert [one["name"] for one in about["triggers"]] == ["tr"]
    (key,) = about["foreign_keys"]
    assert key == {
        "columns": ["e"],
        "table": "a",
        "to": ["id"],
        "on_update": "NO ACTION",
        "on_delete": "CASCADE",
    }
    (key,) = relations(made)["k"]["foreign_keys"]
    assert (key["columns"], key["table"], key["on_update"]) == (["x", "y"], "w", "SET NULL")
    assert "triggers" not in relations(made)["k"]


def test_rows_are_counted(made: Client) -> None:
    counts = {name: one["rows"] for name, one in relations(made).items()}
    assert counts == {"a": 2, "w": 0, "s": 0, "k": 0, "f": 0, "r": 1}


def test_a_page_has_the_statements_themselves(made: Client) -> None:
    page = see(made, "text/markdown")
    assert page.headers["content-type"] == "text/markdown; charset=utf-8"
    assert "## table a (2 rows)\n\n```sql\nCREATE TABLE a(" in page.text
    assert "```sql\nCREATE TRIGGER tr " in page.text
    assert "## view v\n\n```sql\nCREATE VIEW v AS" in page.text
    assert "f_data" not in page.text


@pytest.mark.parametrize("accept", ["text/csv", "application/x-ndjson", "text/html"])
def test_there_is_no_other_form(made: Client, accept: str) -> None:
    assert (see(made, accept).status, see(made, accept).code) == (406, "not_acceptable")


def test_odd_names_are_names(client: Client) -> None:
    names = ['odd "name" ]', "'", "a b", "select", "ü", "%_", "x;--", ""]
    for name in names:
        quoted = '"' + name.replace('"', '""') + '"'
        assert (
            client.sql(f"CREATE TABLE {quoted}({quoted}); INSERT INTO {quoted} VALUES(1)").status
            == 200
        )
    found = relations(client)
    assert list(found) == names
    assert [one["columns"][0]["name"] for one in found.values()] == names
    assert all(one["rows"] == 1 for one in found.values())


def test_a_broken_view_is_told_with_its_error_and_hides_nothing(client: Client) -> None:
    sql = "CREATE TABLE a(x); CREATE VIEW b AS SELECT * FROM a; CREATE VIEW c AS SELECT 1 AS one"
    client.sql(f"CREATE TABLE d(x); {sql}; DROP TABLE a")
    views = relations(client, "views")
    assert "no such table: main.a" in views["b"]["error"]
    assert views["c"]["columns"] == [{"name": "one", "type": ""}]
    assert list(relations(client)) == ["d"]
    assert "no such table: main.a" in see(client, "text/markdown").text


def test_an_empty_database_says_so(client: Client) -> None:
    client.sql("SELECT 1")
    assert see(client).json == {"tables": [], "views": []}
    assert see(client, "text/markdown").text == "The database is empty.\n"


def test_the_first_500_of_600_tables_are_told(client: Client) -> None:
    for start in range(0, 600, 100):
        sql = "; ".join(f"CREATE TABLE t{n}(a)" for n in range(start, start + 100))
        assert client.sql(sql).status == 200
    found = see(client).json
    assert [one["name"] for one in found["tables"]] == [f"t{n}" for n in range(500)]
    assert found["truncated"] is True
    assert "There is more" in see(client, "text/markdown").text


def test_wide_tables_are_told_as_far_as_there_is_room(client: Client) -> None:
    columns = ", ".join(f"c{n}" for n in range(999))
    for number in range(100):
        assert client.sql(f"CREATE TABLE t{number}({columns})").status == 200
    found = see(client)
    assert found.status == 200
    assert found.json["truncated"] is True
    assert 10 < len(found.json["tables"]) < 100
    assert len(found.text) < 1 << 20


def test_a_table_with_too_much_about_it_hides_no_other(client: Client) -> None:
    client.sql("CREATE TABLE t(a); CREATE TABLE after_it(a)")
    for number in range(150):
        comment = "x" * 7500
        trigger = f"CREATE TRIGGER r{number} AFTER INSERT ON t BEGIN SELECT '{comment}'; END"
        assert client.sql(trigger).status == 200
    assert list(relations(client)) == ["after_it"]
    assert see(client).json["truncated"] is True


def test_a_big_table_is_counted_or_not_but_answered_soon(client: Client) -> None:
    rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300000)"
    assert client.sql(f"CREATE TABLE t(a); {rows} INSERT INTO t SELECT i FROM n").status == 200
    asked = time.monotonic()
    count = relations(client)["t"]["rows"]
    assert time.monotonic() - asked < 1
    assert count in (None, 300_000)


@pytest.mark.parametrize("token", [None, "", "wkn_x", "wkn_" + "A" * 107])
def test_without_a_token_of_ours_there_is_no_database(client: Client, token: str | None) -> None:
    headers = {} if token is None else {"X-Walkin-Session": token}
    answer = Answer(client.http.get("/schema", headers=headers))
    assert (answer.status, answer.code) == (404, "instance_not_found")


def test_an_expired_database_has_no_schema(make_service: Callable[..., Service]) -> None:
    client = make_service(ttl_s=1).client()
    client.sql("CREATE TABLE t(a)")
    give_up = time.monotonic() + 10
    while (answer := see(client)).status == 200:
        assert time.monotonic() < give_up
    assert (answer.status, answer.code) == (404, "instance_expired")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_it_can_only_be_read(made: Client, method: str) -> None:
    headers = {"X-Walkin-Session": made.token or ""}
    answer = Answer(made.http.request(method, "/schema", headers=headers, content=b"{}"))
    assert (answer.status, answer.code) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS"
    assert json.loads(answer.text)["error"]


def test_head_is_the_same_without_a_body(made: Client) -> None:
    head = made.http.head("/schema", headers={"X-Walkin-Session": made.token or ""})
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(see(made).text))
