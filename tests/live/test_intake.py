"""What comes into a database over HTTP: files, scripts, rows; all of it or nothing."""

import gzip
import json
import os
import signal
import socket
import sqlite3
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.handles import Client, Service, wait_until
from tests.hostile import files

RICH = """
    CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, a TEXT, b BLOB, c REAL);
    INSERT INTO t VALUES(1, 'one', x'00ff', 1.5), (5, 'fünf', NULL, -0.25);
    CREATE TABLE log(what); CREATE INDEX by_a ON t(a);
    CREATE TRIGGER told AFTER INSERT ON t BEGIN INSERT INTO log VALUES(new.a); END;
    CREATE VIEW v AS SELECT a FROM t; CREATE VIRTUAL TABLE f USING fts5(w);
    INSERT INTO f VALUES('quick brown fox'); PRAGMA user_version=7;
"""


def made(script: str, folder: Path) -> bytes:
    file = folder / "made.db"
    file.unlink(missing_ok=True)
    database = sqlite3.connect(file)
    database.executescript(script)
    database.close()
    return file.read_bytes()


def put(client: Client, file: bytes, **headers: str) -> httpx.Response:
    sent = {"X-Walkin-Session": client.token or "", **headers}
    return client.http.put("/database", content=file, headers=sent)


def download(client: Client) -> bytes:
    return client.http.get("/database", headers={"X-Walkin-Session": client.token or ""}).content


def post_rows(
    client: Client, table: str, body: bytes, content_type: str = "text/csv", **headers: str
) -> httpx.Response:
    sent = {"X-Walkin-Session": client.token or "", "Content-Type": content_type, **headers}
    return client.http.post(f"/tables/{table}", content=body, headers=sent)


@pytest.fixture
def holder(client: Client) -> Client:
    client.sql("CREATE TABLE old(a); INSERT INTO old VALUES('kept')")
    return client


def _content(file: bytes) -> bytes:
    """A file without the counters of how often it was changed, which are in its head."""
    return file[:24] + file[28:40] + file[44:92] + file[100:]


def is_as_before(client: Client) -> bool:
    return bool(client.sql("SELECT a FROM old").rows == [["kept"]])


# --- a file ---


def test_a_file_takes_the_place_of_everything(holder: Client, tmp_path: Path) -> None:
    answer = put(holder, made(RICH, tmp_path))
    assert answer.status_code == 200, answer.text
    assert answer.json()["tables"] == 3
    assert holder.sql("SELECT * FROM old").code == "unknown_table"
    assert holder.sql("SELECT id, a, c FROM t").rows == [[1, "one", 1.5], [5, "fünf", -0.25]]
    assert holder.sql("SELECT w FROM f WHERE f MATCH 'brown'").rows == [["quick brown fox"]]
    assert holder.sql("INSERT INTO t(a) VALUES('six'); SELECT * FROM log").rows[-1] == ["six"]
    assert holder.sql("SELECT max(id) FROM t").rows == [[6]]
    assert holder.sql("PRAGMA user_version").rows == [[7]]
    assert holder.sql("PRAGMA journal_mode").rows == [["wal"]]
    assert holder.sql("PRAGMA max_page_count").rows == [[2560]]
    assert holder.sql("PRAGMA integrity_check").rows == [["ok"]]


def test_what_was_taken_out_can_be_put_in_again(
    service: Service, holder: Client, tmp_path: Path
) -> None:
    holder.call("INSERT INTO old VALUES('again')", {"Idempotency-Key": "k"})
    assert put(holder, made(RICH, tmp_path)).status_code == 200
    first = download(holder)
    other = service.client()
    other.sql("SELECT 1")
    assert put(other, first).status_code == 200
    assert _content(download(other)) == _content(first)
    keyed = other.call("INSERT INTO t(a) VALUES('k')", {"Idempotency-Key": "k"})
    assert keyed.json == {"rows_affected": 1}
    third = download(other)
    assert put(holder, third).status_code == 200
    again = holder.call("INSERT INTO t(a) VALUES('k')", {"Idempotency-Key": "k"})
    assert again.json == {"rows_affected": 1}, "receipts of another database are none"
    assert "idempotency-replayed" not in again.headers


@pytest.mark.parametrize("name", files.VALID)
def test_a_sound_file_is_taken_or_its_page_size_is_named(holder: Client, name: str) -> None:
    file = files.VALID[name]()
    answer = put(holder, file)
    if int.from_bytes(file[16:18]) == 4096:
        assert answer.status_code == 200, answer.text
        assert holder.sql("PRAGMA integrity_check").rows == [["ok"]]
    else:
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_database")
        assert "page_size=4096" in answer.json()["hint"]


@pytest.mark.timeout(300)
def test_no_hostile_file_is_taken(make_service: Callable[..., Service]) -> None:
    service = make_service()
    holder = service.client()
    holder.sql("CREATE TABLE old(a); INSERT INTO old VALUES('kept')")
    for name, make in files.FILES.items():
        answer = put(holder, make())
        if name in files.HARMLESS and answer.status_code == 200:
            assert holder.sql("PRAGMA integrity_check").rows == [["ok"]], name
            holder = service.client()
            holder.sql("CREATE TABLE old(a); INSERT INTO old VALUES('kept')")
            continue
        assert answer.status_code in (400, 408), (name, answer.text)
        assert is_as_before(holder), name
    assert "Traceback" not in service.log()
    assert " FAULT" not in service.log()


def test_one_that_is_too_large_is_refused(holder: Client, tmp_path: Path) -> None:
    file = made("CREATE TABLE t(a); INSERT INTO t VALUES(zeroblob(11000000))", tmp_path)
    answer = put(holder, file)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert is_as_before(holder)


def test_the_largest_fits(holder: Client, tmp_path: Path) -> None:
    script = "CREATE TABLE t(a); " + "INSERT INTO t VALUES(zeroblob(1000000));" * 10
    file = made(script, tmp_path)
    took = []
    for _ in range(3):
        began = time.perf_counter()
        assert put(holder, file).status_code == 200
        took.append(time.perf_counter() - began)
    print(f"{len(file) / 1e6 / statistics.median(took):.0f} MB/s")
    assert holder.sql("SELECT sum(length(a)) FROM t").rows == [[10_000_000]]
    assert holder.sql("INSERT INTO t VALUES(zeroblob(900000))").code == "quota_exceeded"


def test_it_is_all_or_nothing_however_often_the_cell_is_killed(
    make_service: Callable[..., Service], tmp_path: Path
) -> None:
    service = make_service()
    holder = service.client()
    holder.sql("CREATE TABLE old(a); INSERT INTO old VALUES('kept')")
    one = download(holder)
    script = "CREATE TABLE new(a); " + "INSERT INTO new VALUES(randomblob(900000));" * 9
    two = made(script, tmp_path)
    with ThreadPoolExecutor(1) as pool:
        for number in range(24):
            assert put(holder, one).status_code == 200
            cell = service.cell(holder)
            putting = pool.submit(put, service.client(holder.token), two)
            time.sleep(0.006 * number)
            os.kill(cell, signal.SIGKILL)
            answer = putting.result(20)
            assert answer.status_code in (200, 500), answer.text
            found = [name for (name,) in holder.sql("SELECT name FROM sqlite_schema").rows]
            assert found in (["old"], ["new"])
            if answer.status_code == 200:
                assert found == ["new"]
            assert holder.sql("PRAGMA integrity_check").rows == [["ok"]]


def test_calls_beside_it_see_the_old_or_the_new(
    service: Service, holder: Client, tmp_path: Path
) -> None:
    file = made("CREATE TABLE old(a); INSERT INTO old VALUES('new')", tmp_path)

    def look(_: int) -> Any:
        answer = service.client(holder.token).sql("SELECT a FROM old")
        return answer.rows[0][0]

    with ThreadPoolExecutor(4) as pool:
        looking = pool.map(look, range(60))
        assert put(holder, file).status_code == 200
        assert set(looking) <= {"kept", "new"}
    assert holder.sql("SELECT a FROM old").rows == [["new"]]


def test_it_takes_a_full_token_that_is_not_over(service: Service, holder: Client) -> None:
    headers = {"X-Walkin-Session": holder.token or ""}
    token = holder.http.post("/session/tokens", json={"scope": "read"}, headers=headers).json()
    guest = service.client(token["token"])
    for refused in (put(guest, b"x"), post_rows(guest, "t", b"a\n1\n")):
        assert (refused.status_code, refused.json()["code"]) == (403, "token_too_narrow")
    nobody = service.client("wkn_wrong")
    for refused in (put(nobody, b"x"), post_rows(nobody, "t", b"a\n1\n")):
        assert (refused.status_code, refused.json()["code"]) == (404, "instance_not_found")
    assert is_as_before(holder)


# --- POST /session with a body of its own ---


def test_a_database_is_made_from_a_file(service: Service, tmp_path: Path) -> None:
    client = service.client()
    answer = client.http.post(
        "/session?ttl_s=30",
        content=made(RICH, tmp_path),
        headers={"Content-Type": "application/vnd.sqlite3"},
    )
    assert answer.status_code == 201, answer.text
    assert 28 <= answer.json()["seconds_left"] <= 30
    client.token = answer.json()["token"]
    assert client.token == answer.headers["x-walkin-session"]
    assert client.sql("SELECT count(*) FROM t").rows == [[2]]


def test_a_database_is_made_from_a_script(service: Service, tmp_path: Path) -> None:
    made(
        RICH.replace("CREATE VIRTUAL TABLE f USING fts5(w);", "").replace(
            "INSERT INTO f VALUES('quick brown fox');", ""
        ),
        tmp_path,
    )
    database = sqlite3.connect(tmp_path / "made.db")
    script = "\n".join(database.iterdump())
    database.close()
    client = service.client()
    script = "PRAGMA foreign_keys=OFF;\n" + script
    answer = client.http.post(
        "/session", content=script.encode(), headers={"Content-Type": "application/sql"}
    )
    assert answer.status_code == 201, answer.text
    client.token = answer.json()["token"]
    assert client.sql("SELECT id, a FROM t ORDER BY id").rows == [[1, "one"], [5, "fünf"]]
    assert client.sql("PRAGMA foreign_keys").rows == [[1]]
    assert client.sql("PRAGMA foreign_keys=OFF").code == "not_authorized"


def test_a_dump_makes_the_same_database_elsewhere(
    service: Service, holder: Client, tmp_path: Path
) -> None:
    assert put(holder, made(RICH, tmp_path)).status_code == 200
    holder.call("INSERT INTO log VALUES('keyed')", {"Idempotency-Key": "k"})
    out = holder.http.get("/dump.sql", headers={"X-Walkin-Session": holder.token or ""})
    assert out.headers["content-type"] == "application/sql"
    assert 'filename="walkin.sql"' in out.headers["content-disposition"]
    assert "receipts" not in out.text
    client = service.client()
    answer = client.http.post(
        "/session", content=out.content, headers={"Content-Type": "application/sql"}
    )
    assert answer.status_code == 201, answer.text
    client.token = answer.json()["token"]
    for look in (
        "SELECT * FROM t ORDER BY id",
        "SELECT * FROM log",
        "SELECT w FROM f('brown')",
        "SELECT name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite%' ORDER BY name",
        "SELECT * FROM sqlite_sequence",
        "PRAGMA user_version",
    ):
        assert client.sql(look).rows == holder.sql(look).rows, look
    again = client.http.get("/dump.sql", headers={"X-Walkin-Session": client.token or ""})
    assert again.text == out.text


def test_a_long_script_is_run_within_the_clock(service: Service) -> None:
    lines = [f"INSERT INTO t VALUES({n}, 'row number {n}');" for n in range(50_000)]
    script = "CREATE TABLE t(a, b); BEGIN;\n" + "\n".join(lines) + "\nCOMMIT;"
    client = service.client()
    answer = client.http.post(
        "/session", content=script.encode(), headers={"Content-Type": "application/sql"}
    )
    assert answer.status_code == 201, answer.text
    client.token = answer.json()["token"]
    assert client.sql("SELECT count(*) FROM t").rows == [[50_000]]


def test_what_fails_to_fill_a_database_has_made_it(service: Service) -> None:
    for content, kind, code in (
        (b"CREATE TABLE t(a); SELEC", "application/sql", "syntax_error"),
        (b"ATTACH 'x' AS y", "application/sql", "forbidden_keyword"),
        (b"\xff", "application/sql", "sql_error"),
        (b"not a file", "application/vnd.sqlite3", "invalid_database"),
    ):
        client = service.client()
        answer = client.http.post("/session", content=content, headers={"Content-Type": kind})
        assert (answer.status_code, answer.json()["code"]) == (400, code)
        client.token = answer.headers["x-walkin-session"]
        assert client.sql("SELECT 1").rows == [[1]]


@pytest.mark.parametrize("query", ["ttl_s=0", "ttl_s=x", "ttl_s=99999", "ttl=5", "ttl_s=-1"])
def test_a_wrong_lifetime_in_the_url_makes_nothing(client: Client, query: str) -> None:
    headers = {"Content-Type": "application/sql"}
    refused = client.http.post(f"/session?{query}", content=b"SELECT 1", headers=headers)
    assert refused.status_code == 400
    assert "x-walkin-session" not in refused.headers


# --- rows ---


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/csv", b'id,name,score\r\n1,"a, b",1.5\r\n2,,\r\n'),
        ("text/csv; charset=utf-8", b'id,name,score\n1,"a, b",1.5\n2,,\n'),
        ("text/tab-separated-values", b"id\tname\tscore\n1\ta, b\t1.5\n2\t\t\n"),
        ("application/x-ndjson", b'{"id":1,"name":"a, b","score":1.5}\n{"id":2}\n'),
        ("application/json", b'[{"id":1,"name":"a, b","score":1.5},{"id":2}]'),
        (
            "application/json",
            b'{"columns":["id","name","score"],"rows":[[1,"a, b",1.5],[2,null,null]]}',
        ),
    ],
)
def test_rows_make_a_table(holder: Client, content_type: str, body: bytes) -> None:
    answer = post_rows(holder, "t", body, content_type)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "rows_affected": 2,
        "created": True,
        "columns": ["id", "name", "score"],
    }
    assert holder.sql("SELECT * FROM t").rows == [[1, "a, b", 1.5], [2, None, None]]
    kinds = holder.sql("SELECT type FROM pragma_table_info('t')").rows
    assert kinds == [["INTEGER"], ["TEXT"], ["REAL"]]


def test_no_integer_becomes_another_one_beside_a_float(holder: Client) -> None:
    body = b"a\n9007199254740993\n1.5\n-9223372036854775807\n"
    assert post_rows(holder, "t", body).status_code == 200
    answer = holder.sql("SELECT CAST(a AS TEXT) FROM t")
    assert answer.rows == [["9007199254740993"], ["1.5"], ["-9223372036854775807"]]


def test_rows_are_added_to_a_table_that_is_there(holder: Client) -> None:
    holder.sql("CREATE TABLE t(id INTEGER PRIMARY KEY, zip TEXT, n INTEGER DEFAULT 7)")
    answer = post_rows(holder, "t", b"ID,Zip\n1,007\n2,1.50\n")
    assert answer.json() == {"rows_affected": 2, "created": False, "columns": ["ID", "Zip"]}
    assert holder.sql("SELECT * FROM t").rows == [[1, "007", 7], [2, "1.50", 7]]


def test_rows_may_come_packed(holder: Client) -> None:
    packed = gzip.compress(b"a\n1\n2\n")
    answer = post_rows(holder, "t", packed, **{"Content-Encoding": "gzip"})
    assert answer.json()["rows_affected"] == 2
    refused = post_rows(holder, "t", _bomb(), **{"Content-Encoding": "gzip"})
    assert (refused.status_code, refused.json()["code"]) == (413, "body_too_large")
    refused = post_rows(holder, "t", packed[:-3], **{"Content-Encoding": "gzip"})
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_rows")
    refused = post_rows(holder, "t", packed, **{"Content-Encoding": "br"})
    assert (refused.status_code, refused.json()["code"]) == (415, "content_type")
    assert holder.sql("SELECT count(*) FROM t").rows == [[2]]


def _bomb() -> bytes:
    return gzip.compress(bytes(1 << 20)) * 200


@pytest.mark.parametrize(
    ("body", "code", "line"),
    [
        (b"a,b\n1,2\n3\n", "invalid_rows", 3),
        (b"a,b\n1,2\n\xff,4\n", "invalid_rows", 3),
        (b'a,b\n1,"2\n', "invalid_rows", None),
        (b"a,a\n1,2\n", "invalid_rows", 1),
        (b"", "invalid_rows", None),
        (b"id,zip\n1,x\n2,y\n1,z\n", "constraint_failed", 4),
        (b"id,zip\n1,x\nword,y\n", "datatype_mismatch", 3),
    ],
)
def test_a_row_that_does_not_fit_is_named_and_none_is_kept(
    holder: Client, body: bytes, code: str, line: int | None
) -> None:
    holder.sql("CREATE TABLE t(id INTEGER PRIMARY KEY, zip TEXT)")
    table = "t" if body.startswith(b"id") else "fresh"
    refused = post_rows(holder, table, body)
    assert (refused.status_code, refused.json()["code"]) == (400, code), refused.text
    if line is not None:
        assert refused.json()["line"] == line
    assert holder.sql("SELECT count(*) FROM t").rows == [[0]]
    assert holder.sql("SELECT * FROM fresh").code == "unknown_table"


def test_a_column_that_there_is_not_is_told_with_the_nearest(holder: Client) -> None:
    refused = post_rows(holder, "old", b"aa\n1\n").json()
    assert (refused["code"], refused["suggestions"]) == ("unknown_column", ["a"])
    assert is_as_before(holder)


@pytest.mark.parametrize(
    ("table", "code"),
    [
        ("sqlite_schema", "sql_error"),
        ("sqlite_walkin_receipts", "not_authorized"),
        ("sqlite_new", "sql_error"),
    ],
)
def test_rows_go_into_no_table_of_sqlites_or_ours(holder: Client, table: str, code: str) -> None:
    holder.call("SELECT 1", {"Idempotency-Key": "k"})
    refused = post_rows(holder, table, b"key\n1\n")
    assert (refused.status_code, refused.json()["code"]) in ((400, code), (400, "unknown_column"))
    assert "print" not in refused.text, "nor are ours shown"
    assert is_as_before(holder)


def test_rows_that_do_not_fit_the_quota_leave_nothing(holder: Client) -> None:
    body = b"a\n" + (b"x" * 1000 + b"\n") * 9000
    assert post_rows(holder, "t", body).status_code == 200
    refused = post_rows(holder, "t", body)
    assert (refused.status_code, refused.json()["code"]) == (507, "quota_exceeded")
    assert holder.sql("SELECT count(*) FROM t").rows == [[9000]]


def test_ten_megabytes_of_rows_fit_the_clock(holder: Client) -> None:
    row = b",".join(b"%d" % n for n in range(10))
    body = b"a,b,c,d,e,f,g,h,i,j\n" + (row + b"\n") * 100_000
    began = time.perf_counter()
    answer = post_rows(holder, "t", body)
    print(f"{len(body) / 1e6:.1f} MB in {time.perf_counter() - began:.2f} s")
    assert answer.json()["rows_affected"] == 100_000, answer.text


def test_a_name_too_long_for_a_table_is_refused(holder: Client) -> None:
    for name in ("x" * 1001, "%00" * 20_000):
        refused = post_rows(holder, name, b"a\n1\n")
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_option")
        headers = {"X-Walkin-Session": holder.token or ""}
        assert holder.http.get(f"/tables/{name}", headers=headers).status_code == 400
    assert is_as_before(holder)


def test_another_content_type_is_refused(holder: Client) -> None:
    refused = post_rows(holder, "t", b"a\n1\n", "text/html")
    assert (refused.status_code, refused.json()["code"]) == (415, "content_type")


def test_rows_come_back_as_they_went(holder: Client) -> None:
    holder.sql("CREATE TABLE s(i INTEGER, r REAL, t TEXT, b BLOB)")
    holder.sql(
        "INSERT INTO s VALUES(9223372036854775807, 1e300, 'a \"q\", ' || char(10), x'00ff'),"
        " (NULL, NULL, NULL, NULL), (0, 0.5, '', x'')"
    )
    headers = {"X-Walkin-Session": holder.token or ""}
    for accept in ("text/csv", "application/x-ndjson", "application/json"):
        name = accept.partition("/")[2]
        out = holder.http.get("/tables/s", headers={**headers, "Accept": accept}).content
        assert post_rows(holder, name, out, accept).status_code == 200
        assert holder.sql(f'SELECT * FROM "{name}"').rows == holder.sql("SELECT * FROM s").rows


# --- what all uploads together may take ---


def test_no_client_holds_more_than_its_share(make_service: Callable[..., Service]) -> None:
    service = make_service(workers=1)
    holder = service.client()
    holder.sql("CREATE TABLE old(a); INSERT INTO old VALUES('kept')")
    host, port = service.url.removeprefix("http://").split(":")
    slow = []
    head = (
        f"PUT /database HTTP/1.1\r\nHost: x\r\nX-Walkin-Session: {holder.token}\r\n"
        f"Content-Length: {10 << 20}\r\n\r\n"
    )
    for _ in range(3):
        sock = socket.create_connection((host, int(port)))
        sock.settimeout(5)
        sock.sendall(head.encode())
        slow.append(sock)
    sent = 0
    refused = b""
    for sock in slow:
        try:
            sock.sendall(bytes(9 << 20))
            sent += 1
        except OSError:
            continue
    wait_until(lambda: any(_answered(sock) for sock in slow), 10, "one is refused")
    for sock in slow:
        refused += _answered(sock)
        sock.close()
    assert b" 503 " in refused
    assert is_as_before(holder), "and nobody else waits for them"
    wait_until(lambda: put(holder, download(holder)).status_code == 200, 10, "there is room again")


def _answered(sock: Any) -> bytes:
    try:
        return bytes(sock.recv(4096, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except OSError:
        return b""


def test_json_is_what_an_answer_is(holder: Client) -> None:
    answer = put(holder, json.dumps({}).encode())
    assert answer.json()["code"] == "invalid_database"
    assert answer.headers["content-type"] == "application/json"
