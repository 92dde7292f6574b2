"""A cell from fork to end: it takes orders, answers calls one by one, and goes when it must."""

import json
import os
import select
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sandbox import cell as cell_process
from sandbox import frames, leash, limits, policy
from sandbox.frames import Kind
from sandbox.gate import Gate
from sandbox.jail import Walls
from sandbox.leash import Order, Report
from sandbox.place import DATABASE, FILES, Place
from sandbox.sqlite import blank_database
from tests.handles import wait_until
from tests.sandbox.handles import (
    CELL_USER,
    Child,
    Line,
    call_frame,
    give_to_cells,
    make_database_folder,
    new_id,
)

ENDLESS = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
#: SQLite does not look at its clock during this: one function call of many seconds.
DEAF = (
    "SELECT trim(replace(hex(zeroblob(450000)), '0', 'b'), "
    "replace(hex(zeroblob(40000)), '0', 'a') || 'b')"
)


class Cell:
    """A real cell on a leash that the test holds."""

    def __init__(self, place: Place, walls: Walls) -> None:
        self.place = place
        self.instance = new_id()
        parent = os.getpid()
        self._lines: list[Line] = []
        # Child's socket is of the leash's kind; run() never returns.
        self.child = Child(
            lambda sock: cell_process.run(sock, parent, place, walls, walls.ruleset())
        )
        self.leash = self.child.sock

    def make(self) -> Path:
        """Make the database's files as the zygote does."""
        folder = self.place.folder(self.instance)
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        give_to_cells(folder.parent)
        return make_database_folder(folder, blank_database())

    def order(self, order: Order) -> Line:
        """Send an order with a new line and return the asker's end."""
        mine, theirs = socket.socketpair()
        with theirs:
            leash.send_order(self.leash, order, self.instance, policy.MAX_PAGES, theirs)
        line = Line(mine)
        self._lines.append(line)
        return line

    def assign(self) -> Line:
        """Give it its database; return a line once it says that it is ready."""
        self.make()
        line = self.order(Order.ASSIGN)
        assert self.report()[0] == Report.READY
        return line

    def report(self) -> tuple[int, str]:
        """Wait for its next report."""
        packet = self.leash.recv(leash.MAX_REPORT)
        assert packet, "the cell has ended"
        return packet[0], packet[1:].decode()

    def title(self) -> str:
        command = Path(f"/proc/{self.child.pid}/cmdline").read_bytes()
        return command.replace(b"\0", b" ").decode().strip()

    def retire(self) -> None:
        leash.send_order(self.leash, Order.RETIRE, self.instance)

    def close(self) -> None:
        for line in self._lines:
            line.close()
        self.child.close()


@pytest.fixture
def place(folder: Path) -> Place:
    made = Place(folder / "data")
    made.prepare(CELL_USER.uid, CELL_USER.gid)
    return made


@pytest.fixture
def start_cell(place: Place, walls: Walls) -> Iterator[Callable[[], Cell]]:
    started: list[Cell] = []

    def start() -> Cell:
        started.append(Cell(place, walls))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def cell(start_cell: Callable[[], Cell]) -> Cell:
    return start_cell()


# --- from blank to ready ---


def test_a_blank_cell_says_so_in_its_title(cell: Cell) -> None:
    wait_until(lambda: cell.title() == "walkin: blank cell", 5)


def test_a_blank_cell_ends_with_its_leash(cell: Cell) -> None:
    wait_until(lambda: cell.title() == "walkin: blank cell", 5)
    cell.leash.close()
    assert cell.child.wait() == 0


def test_a_cell_names_its_database_in_its_title(cell: Cell) -> None:
    cell.assign()
    assert cell.title() == f"walkin: cell {cell.instance.hex()}"


def test_a_cell_is_ready_before_it_is_asked(cell: Cell) -> None:
    cell.make()
    cell.order(Order.ASSIGN)
    assert cell.report() == (Report.READY, "")


def test_a_call_may_be_sent_before_the_cell_is_ready(cell: Cell) -> None:
    cell.make()
    line = cell.order(Order.ASSIGN)
    assert line.sql("SELECT 1").rows == [[1]]


def test_a_ready_cell_is_jailed(cell: Cell) -> None:
    cell.assign()
    status = Path(f"/proc/{cell.child.pid}/status").read_text()
    assert "NoNewPrivs:\t1\n" in status
    assert "Seccomp:\t2\n" in status


def test_a_cell_without_its_folder_reports_the_wall_and_fails(cell: Cell) -> None:
    cell.order(Order.ASSIGN)
    number, text = cell.report()
    assert number == Report.FAULT
    assert "WallError" in text
    assert "Landlock" in text
    assert os.waitstatus_to_exitcode(cell.child.wait()) == 1


@pytest.mark.parametrize("content", [b"\xff" * 8192, b"", b"SQLite format 3\0" + b"\xff" * 84])
def test_a_cell_whose_file_is_rubbish_says_so_to_every_call(
    start_cell: Callable[[], Cell], content: bytes
) -> None:
    cell = start_cell()
    (cell.make() / DATABASE).write_bytes(content)
    line = cell.order(Order.ASSIGN)
    assert cell.report()[0] == Report.READY
    for sql in ("SELECT 1", "CREATE TABLE t(x)", "VACUUM"):
        answer = line.sql(sql)
        assert (answer.status, answer.code) == (400, "sql_error")
        assert answer.json["error"] == "invalid sql: file is not a database"
        assert answer.json["sqlite_code"] == "SQLITE_NOTADB"
    cell.retire()
    assert os.waitstatus_to_exitcode(cell.child.wait()) == 0


def test_a_cell_without_its_file_fails(start_cell: Callable[[], Cell]) -> None:
    cell = start_cell()
    (cell.make() / DATABASE).unlink()
    line = cell.order(Order.ASSIGN)
    number, text = cell.report()
    assert number == Report.FAULT
    assert "FileNotFoundError" in text
    assert line.next_frame() is None
    assert os.waitstatus_to_exitcode(cell.child.wait()) == 1


def test_an_order_to_retire_before_any_database_ends_the_cell(cell: Cell) -> None:
    cell.retire()
    assert cell.child.wait() == 0


# --- calls ---


def test_a_call_is_answered(cell: Cell) -> None:
    line = cell.assign()
    answer = line.sql("CREATE TABLE t(a); INSERT INTO t VALUES(?) RETURNING a", [7])
    assert (answer.status, answer.json) == (
        200,
        {"columns": ["a"], "rows": [[7]], "rows_affected": 1},
    )


def test_calls_see_what_earlier_ones_did(cell: Cell) -> None:
    line = cell.assign()
    line.sql("CREATE TABLE t(a)")
    for number in range(20):
        assert line.sql("INSERT INTO t VALUES(?)", [number]).json == {"rows_affected": 1}
    assert line.sql("SELECT count(*) FROM t").rows == [[20]]


def test_calls_sent_at_once_are_answered_in_their_order(cell: Cell) -> None:
    line = cell.assign()
    line.sock.sendall(b"".join(call_frame("SELECT ?", [number]) for number in range(10)))
    assert [line.answer().rows for _ in range(10)] == [[[number]] for number in range(10)]


def test_a_call_may_arrive_byte_by_byte(cell: Cell) -> None:
    line = cell.assign()
    line.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    for byte in call_frame("SELECT 1"):
        line.sock.send(bytes([byte]))
    assert line.answer().rows == [[1]]


def test_a_long_answer_arrives_whole(cell: Cell) -> None:
    line = cell.assign()
    answer = line.sql("SELECT replace(hex(zeroblob(450000)), '0', 'x')")
    assert answer.rows == [["x" * 900_000]]


def test_an_error_carries_the_calls_request_id(cell: Cell) -> None:
    line = cell.assign()
    body = json.dumps({"sql": "SELEKT"}).encode()
    line.sock.sendall(frames.encode_call(1000, bytes(range(16)), body, announce=False))
    answer = line.answer()
    assert answer.status == 400
    assert answer.json["request_id"] == bytes(range(16)).hex()
    assert answer.json["error"].startswith("invalid sql: ")


@pytest.mark.parametrize(
    ("sql", "args", "status", "code"),
    [
        ("ATTACH 'x' AS y", None, 400, "forbidden_keyword"),
        ("SELEKT", None, 400, "syntax_error"),
        ("SELECT ?", None, 400, "invalid_args"),
        ("SELECT ?", [{"base64": "?"}], 400, "invalid_args"),
        ("SELECT ?", [{"float": []}], 400, "invalid_args"),
        ("BEGIN", None, 400, "transaction_open"),
        ("SELECT CAST(x'ff' AS TEXT)", None, 400, "text_not_utf8"),
        ("PRAGMA database_list", None, 400, "not_authorized"),
        ("SELECT '\0'", None, 400, "sql_error"),
    ],
)
def test_a_refusal_is_an_answer_and_the_cell_goes_on(
    cell: Cell, sql: str, args: object, status: int, code: str
) -> None:
    line = cell.assign()
    answer = line.sql(sql, args)
    assert (answer.status, answer.code) == (status, code)
    assert line.sql("SELECT 1").rows == [[1]]


def test_a_full_database_is_507_and_can_still_be_read(cell: Cell) -> None:
    line = cell.assign()
    line.sql("CREATE TABLE t(a)")
    fill = "INSERT INTO t VALUES(zeroblob(1000000))"
    statuses = [line.sql(fill).status for _ in range(12)]
    assert statuses == [200] * 10 + [507] * 2
    assert line.sql("SELECT count(*) FROM t").rows == [[10]]


def test_a_transaction_that_rewrites_everything_fits_the_file_limit(cell: Cell) -> None:
    line = cell.assign()
    line.sql("CREATE TABLE t(a)")
    for _ in range(9):
        line.sql("INSERT INTO t VALUES(randomblob(1000000))")
    for _ in range(3):
        assert line.sql("UPDATE t SET a = randomblob(1000000)").json == {"rows_affected": 9}
    assert line.sql("PRAGMA integrity_check").rows == [["ok"]]


def test_vacuum_works_behind_the_walls(cell: Cell) -> None:
    line = cell.assign()
    line.sql("CREATE TABLE t(a); INSERT INTO t VALUES(randomblob(900000)); DELETE FROM t")
    before = line.sql("PRAGMA page_count").rows
    assert line.sql("VACUUM").json == {"rows_affected": 0}
    assert line.sql("PRAGMA page_count").rows < before


def test_everything_that_needs_room_beside_the_file_works_behind_the_walls(cell: Cell) -> None:
    line = cell.assign()
    for sql in (
        "CREATE TEMP TABLE x AS WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n "
        "WHERE i < 50000) SELECT i, hex(randomblob(20)) AS h FROM n; CREATE INDEX temp.i ON x(h);"
        "SELECT count(DISTINCT h) FROM x",
        "CREATE VIRTUAL TABLE f USING fts5(a); INSERT INTO f VALUES('one two')",
        "CREATE VIRTUAL TABLE r USING rtree(id, a, b); INSERT INTO r VALUES(1, 2, 3)",
        "BEGIN; SAVEPOINT s; INSERT INTO f VALUES('three'); ROLLBACK TO s; COMMIT",
        "SELECT datetime('now', 'localtime'), random(), strftime('%Y', 'now')",
        "ANALYZE; REINDEX; PRAGMA optimize; PRAGMA wal_checkpoint(TRUNCATE)",
        "SELECT * FROM f WHERE f MATCH 'one'",
    ):
        assert line.sql(sql).status == 200, sql


def test_local_time_is_there_behind_the_walls(cell: Cell) -> None:
    line = cell.assign()
    ((utc, local),) = line.sql("SELECT datetime('now'), datetime('now', 'localtime')").rows
    assert len(utc) == len(local) == 19


def test_temporary_tables_and_pragmas_are_gone_in_the_next_call(cell: Cell) -> None:
    line = cell.assign()
    assert line.sql("CREATE TEMP TABLE x(a); PRAGMA recursive_triggers = ON").status == 200
    assert line.sql("SELECT * FROM x").code == "unknown_table"
    assert line.sql("PRAGMA recursive_triggers").rows == [[0]]
    assert line.sql("CREATE TABLE t(a); INSERT INTO t VALUES(1)").status == 200


def test_no_file_but_the_two_is_ever_made(cell: Cell) -> None:
    line = cell.assign()
    line.sql("CREATE TABLE t(a); INSERT INTO t VALUES(1); CREATE TEMP TABLE x(a)")
    line.sql("VACUUM")
    found = {path.name for path in cell.place.folder(cell.instance).iterdir()}
    assert found == set(FILES)


# --- time ---


def test_a_query_that_looks_at_the_clock_is_408_and_the_cell_goes_on(cell: Cell) -> None:
    line = cell.assign()
    began = time.monotonic()
    answer = line.sql(ENDLESS, timeout_ms=200)
    assert (answer.status, answer.code) == (408, "query_timeout")
    assert 0.2 <= time.monotonic() - began < 1
    assert line.sql("SELECT 1").rows == [[1]]


def test_a_query_that_does_not_is_ended_by_the_kernel_a_moment_later(cell: Cell) -> None:
    line = cell.assign()
    began = time.monotonic()
    line.send(DEAF, timeout_ms=200)
    assert line.next_frame() is None
    assert 0.2 + cell_process.GRACE_S <= time.monotonic() - began < 2
    assert cell.child.end().signal == "SIGALRM"


def test_the_kernels_timer_does_not_run_between_calls(cell: Cell) -> None:
    line = cell.assign()
    line.sql("SELECT 1", timeout_ms=1)
    time.sleep(cell_process.GRACE_S + 0.1)
    assert line.sql("SELECT 1").rows == [[1]]


def test_what_was_done_before_a_call_that_was_ended_is_kept(
    start_cell: Callable[[], Cell],
) -> None:
    first = start_cell()
    line = first.assign()
    line.sql("CREATE TABLE t(a); INSERT INTO t VALUES('kept')")
    line.send(f"BEGIN; INSERT INTO t VALUES('lost'); {DEAF}; COMMIT", timeout_ms=100)
    assert first.child.end().signal == "SIGALRM"
    second = start_cell()
    second.instance = first.instance
    again = second.order(Order.ASSIGN)
    assert again.sql("SELECT a FROM t").rows == [["kept"]]
    assert again.sql("PRAGMA integrity_check").rows == [["ok"]]


# --- lines ---


def test_a_second_line_reaches_the_same_database(cell: Cell) -> None:
    first = cell.assign()
    first.sql("CREATE TABLE t(a); INSERT INTO t VALUES(1)")
    second = cell.order(Order.CONNECT)
    assert second.sql("SELECT a FROM t").rows == [[1]]
    assert first.sql("SELECT a FROM t").rows == [[1]]


def test_a_line_that_hangs_up_leaves_cell_and_database_to_the_next(cell: Cell) -> None:
    first = cell.assign()
    first.sql("CREATE TABLE t(a); INSERT INTO t VALUES(1)")
    first.close()
    assert cell.order(Order.CONNECT).sql("SELECT a FROM t").rows == [[1]]


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\xff" * 100,
        frames.HEADER.pack(Kind.CALL, 0xFFFF_FFFF),
        frames.encode(Kind.END, b"\0\0"),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_a_line_that_breaks_the_rules_is_dropped_and_the_cell_stays(
    cell: Cell, rubbish: bytes
) -> None:
    first = cell.assign()
    first.sock.sendall(rubbish)
    assert first.next_frame() is None
    assert cell.order(Order.CONNECT).sql("SELECT 1").rows == [[1]]


def test_a_call_shorter_than_its_head_drops_the_line_and_the_cell_stays(cell: Cell) -> None:
    first = cell.assign()
    first.sock.sendall(frames.encode(Kind.CALL, b"short"))
    assert first.next_frame() is None
    assert cell.order(Order.CONNECT).sql("SELECT 1").rows == [[1]]


def test_a_body_that_is_no_json_is_our_fault_and_the_cell_goes_on(cell: Cell) -> None:
    line = cell.assign()
    line.sock.sendall(frames.encode_call(1000, bytes(16), b"no json", announce=False))
    answer = line.answer()
    assert (answer.status, answer.code) == (500, "internal")
    assert answer.json["error"] == "internal error"
    assert cell.report()[0] == Report.FAULT
    assert line.sql("SELECT 1").rows == [[1]]


def test_a_call_that_asks_for_it_is_announced_when_it_begins(cell: Cell) -> None:
    line = cell.assign()
    line.send("SELECT 1", announce=True)
    assert line.next_frame() == (Kind.STARTED, b"")
    assert line.answer().rows == [[1]]


def test_a_call_that_does_not_ask_is_not_announced(cell: Cell) -> None:
    line = cell.assign()
    line.send("SELECT 1")
    frame = line.next_frame()
    assert frame is not None
    assert frame[0] is Kind.END


def test_a_waiting_call_is_announced_when_its_turn_comes(cell: Cell) -> None:
    first = cell.assign()
    second = cell.order(Order.CONNECT)
    second.sql("SELECT 1")
    first.send(ENDLESS, timeout_ms=300)
    began = time.monotonic()
    second.send("SELECT 2", announce=True)
    assert second.next_frame() == (Kind.STARTED, b"")
    assert time.monotonic() - began > 0.2
    assert second.answer().rows == [[2]]
    assert first.answer().status == 408


def test_a_waiting_call_whose_asker_hung_up_is_not_begun(cell: Cell) -> None:
    first = cell.assign()
    first.sql("CREATE TABLE t(a)")
    second = cell.order(Order.CONNECT)
    second.sql("SELECT 1")
    first.send(ENDLESS, timeout_ms=200)
    second.send("INSERT INTO t VALUES(1)", announce=True)
    second.close()
    assert first.answer().status == 408
    assert first.sql("SELECT count(*) FROM t").rows == [[0]]


# --- the end ---


def test_a_cell_that_retires_tells_every_line_that_nothing_was_begun(cell: Cell) -> None:
    lines = [cell.assign(), cell.order(Order.CONNECT)]
    lines[1].sql("SELECT 1")
    cell.retire()
    for line in lines:
        assert line.next_frame() == (Kind.RETIRED, b"")
        assert line.next_frame() is None
    assert cell.child.wait() == 0


def test_a_cell_that_retires_leaves_the_whole_database_in_its_file(cell: Cell) -> None:
    line = cell.assign()
    line.sql("CREATE TABLE t(a); INSERT INTO t VALUES('kept')")
    folder = cell.place.folder(cell.instance)
    assert (folder / FILES[1]).stat().st_size > 0
    cell.retire()
    assert cell.child.wait() == 0
    assert {path.name: path.stat().st_size for path in folder.iterdir()}.keys() == set(FILES)
    assert (folder / FILES[1]).stat().st_size == 0
    with closing(sqlite3.connect(folder / DATABASE)) as plain:
        assert plain.execute("SELECT a FROM t").fetchall() == [("kept",)]
        assert plain.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_call_in_progress_is_finished_before_the_cell_retires(cell: Cell) -> None:
    line = cell.assign()
    line.sql("CREATE TABLE t(a)")
    line.send(ENDLESS, timeout_ms=300, announce=True)
    assert line.next_frame() == (Kind.STARTED, b"")
    cell.retire()
    assert line.answer().status == 408
    assert line.next_frame() == (Kind.RETIRED, b"")
    assert cell.child.wait() == 0


def test_no_call_is_begun_once_a_cell_was_told_to_go_whatever_else_it_was_told(cell: Cell) -> None:
    line = cell.assign()
    line.sql("CREATE TABLE t(a)")
    first = call_frame(ENDLESS, timeout_ms=300, announce=True)
    line.sock.sendall(first + call_frame("INSERT INTO t VALUES(1)"))
    assert line.next_frame() == (Kind.STARTED, b"")
    other = cell.order(Order.CONNECT)
    other.sock.sendall(call_frame("INSERT INTO t VALUES(2)"))
    cell.retire()
    assert line.answer().status == 408
    assert line.next_frame() == (Kind.RETIRED, b"")
    assert other.next_frame() == (Kind.RETIRED, b"")
    assert cell.child.wait() == 0


def test_a_cell_that_cannot_be_tidied_ends_without_a_call_lost(
    start_cell: Callable[[], Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Gate) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(Gate, "tidy", fail)
    cell = start_cell()
    line = cell.assign()
    line.sock.sendall(call_frame("SELECT 1") + call_frame("SELECT 2"))
    assert line.answer().rows == [[1]]
    assert line.next_frame() == (Kind.RETIRED, b"")
    assert cell.report()[0] == Report.FAULT
    assert os.WEXITSTATUS(cell.child.wait()) == 1


def test_a_cell_ends_with_its_leash_and_keeps_the_data(cell: Cell) -> None:
    line = cell.assign()
    line.sql("CREATE TABLE t(a); INSERT INTO t VALUES('kept')")
    cell.leash.close()
    assert cell.child.wait() == 0
    with closing(sqlite3.connect(cell.place.folder(cell.instance) / DATABASE)) as plain:
        assert plain.execute("SELECT a FROM t").fetchall() == [("kept",)]


def test_a_cell_that_has_used_up_its_processor_time_says_so_and_goes_on_until_told(
    start_cell: Callable[[], Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CPU_BUDGET_S", 0.2)
    cell = start_cell()
    line = cell.assign()
    calls = 0
    while not select.select([cell.leash], [], [], 0)[0]:  # how much it gets is the machine's affair
        line.send(ENDLESS, timeout_ms=50)
        answer = line.answer()
        assert answer is not None
        assert answer.status == 408
        calls += 1
    assert calls > 1
    assert cell.report()[0] == Report.TIRED
    cell.order(Order.RETIRE)
    assert line.next_frame() == (Kind.RETIRED, b"")
    assert cell.child.wait() == 0


def test_a_fault_is_reported_without_a_path_of_the_code(cell: Cell) -> None:
    cell.order(Order.ASSIGN)
    _, text = cell.report()
    assert "run:" in text or "_confined:" in text
    assert ".py" not in text
