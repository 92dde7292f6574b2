"""The zygote from outside: what it answers, whom it serves, how it keeps and ends its cells."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from sandbox import control, limits, nursery, settings
from sandbox.control import Op, Outcome
from sandbox.frames import Kind
from sandbox.place import DATABASE, FILES
from tests.handles import is_running, wait_until
from tests.sandbox.handles import (
    AS_ROOT,
    CELL_USER,
    LATER,
    RUN,
    Zygote,
    call_frame,
    children_of,
    new_id,
    now,
)

as_root = pytest.mark.skipif(not AS_ROOT, reason="only root runs the cells as another user")
Starter = Callable[..., Zygote]

ENDLESS = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


# --- create and open ---


def test_a_created_database_can_be_used_over_its_line(zygote: Zygote) -> None:
    instance, line = zygote.create()
    assert line.sql("CREATE TABLE t(a); INSERT INTO t VALUES(1)").json == {"rows_affected": 1}
    assert line.sql("SELECT a FROM t").rows == [[1]]
    zygote.kill(instance)


def boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def test_a_creation_tells_when_it_is_over_by_both_clocks(zygote: Zygote) -> None:
    before, before_boot = time.time(), boottime()
    reply, _ = zygote.ask(Op.CREATE, new_id(), 70)
    assert reply.outcome is Outcome.DONE
    assert before + 70 <= reply.expires <= time.time() + 71, "never less than the lifetime"
    assert before_boot + 70 <= reply.ends / 1e9 <= boottime() + 71


def test_an_opening_tells_the_same(zygote: Zygote) -> None:
    instance = new_id()
    made, _ = zygote.ask(Op.CREATE, instance, 70)
    reply, line = zygote.ask(Op.OPEN, instance)
    assert line is not None
    assert (reply.outcome, reply.expires, reply.ends) == (Outcome.DONE, made.expires, made.ends)


def test_an_id_that_exists_is_not_made_again(zygote: Zygote) -> None:
    instance, line = zygote.create()
    line.sql("CREATE TABLE t(a)")
    reply, second = zygote.ask(Op.CREATE, instance, LATER)
    assert (reply.outcome, second) == (Outcome.FAILED, None)
    assert line.sql("SELECT count(*) FROM t").rows == [[0]]


def test_databases_do_not_see_each_other(zygote: Zygote) -> None:
    (_, one), (_, two) = zygote.create(), zygote.create()
    one.sql("CREATE TABLE t(a)")
    assert two.sql("SELECT * FROM t").code == "unknown_table"


def test_a_second_line_reaches_the_same_cell(zygote: Zygote) -> None:
    instance, first = zygote.create()
    first.sql("CREATE TABLE t(a); INSERT INTO t VALUES(1)")
    cell = zygote.cell(instance)
    second = zygote.open(instance)
    assert second.sql("INSERT INTO t VALUES(2)").json == {"rows_affected": 1}
    assert first.sql("SELECT a FROM t").rows == [[1], [2]]
    assert zygote.cell(instance) == cell


def test_a_line_that_hung_up_can_be_had_again_from_the_same_cell(zygote: Zygote) -> None:
    instance, first = zygote.create()
    first.sql("CREATE TABLE t(a); INSERT INTO t VALUES(1)")
    cell = zygote.cell(instance)
    first.close()
    assert zygote.open(instance).sql("SELECT a FROM t").rows == [[1]]
    assert zygote.cell(instance) == cell


def test_an_open_after_a_kill_sees_the_data_in_a_new_cell(zygote: Zygote) -> None:
    instance, line = zygote.create()
    line.sql("CREATE TABLE t(a); INSERT INTO t VALUES('kept')")
    cell = zygote.cell(instance)
    zygote.kill(instance)
    assert zygote.open(instance).sql("SELECT a FROM t").rows == [["kept"]]
    assert zygote.cell(instance) != cell


def test_a_cell_that_died_by_itself_is_replaced_at_the_next_open(zygote: Zygote) -> None:
    instance, line = zygote.create()
    line.sql("CREATE TABLE t(a); INSERT INTO t VALUES('kept')")
    os.kill(zygote.cell(instance), signal.SIGKILL)
    assert line.next_frame() is None
    # Until its end is known to the zygote, a line may still lead to it.
    wait_until(lambda: zygote.status()["cell_deaths"] == 1)
    assert zygote.open(instance).sql("SELECT a FROM t").rows == [["kept"]]


def test_what_was_never_made_is_missing(zygote: Zygote) -> None:
    reply, line = zygote.ask(Op.OPEN, new_id())
    assert (reply.outcome, line) == (Outcome.MISSING, None)


def test_what_has_expired_is_missing_even_while_its_cell_lives(zygote: Zygote) -> None:
    instance, line = zygote.create(ttl_s=1)
    assert line.sql("SELECT 1").rows == [[1]]

    def outcome() -> Outcome:
        reply, opened = zygote.ask(Op.OPEN, instance)
        if opened:
            opened.close()
        return reply.outcome

    wait_until(lambda: outcome() is Outcome.MISSING, 3)
    assert zygote.has_cell(instance)


def test_what_has_no_record_is_missing(zygote: Zygote) -> None:
    instance, _ = zygote.create()
    zygote.kill(instance)
    zygote.place.forget(instance, now() + LATER + 1)
    reply, _ = zygote.ask(Op.OPEN, instance)
    assert reply.outcome is Outcome.MISSING


def test_answers_to_questions_at_once_carry_their_numbers(zygote: Zygote) -> None:
    ids = [new_id() for _ in range(10)]
    numbers = [zygote.send(Op.CREATE, instance, LATER) for instance in ids]
    replies = [zygote.receive() for _ in ids]
    assert sorted(reply.number for reply, _ in replies) == numbers
    for reply, line in replies:
        assert reply.outcome is Outcome.DONE
        assert line is not None
        assert line.sql("SELECT 1").rows == [[1]]


def test_a_database_holds_its_two_files_and_belongs_to_the_cells_user(zygote: Zygote) -> None:
    instance, line = zygote.create()
    line.sql("CREATE TABLE t(a)")
    folder = zygote.place.folder(instance)
    for path in (folder, *folder.iterdir()):
        found = path.stat()
        assert (found.st_uid, found.st_gid) == (CELL_USER.uid, CELL_USER.gid)
        assert found.st_mode & 0o077 == 0
    assert {path.name for path in folder.iterdir()} == set(FILES)


# --- fork ---


def test_a_fork_has_what_was_committed_and_no_cell(zygote: Zygote) -> None:
    source, line = zygote.create()
    line.sql("CREATE TABLE t(a); INSERT INTO t VALUES(1)")
    copy = new_id()
    reply, nothing = zygote.ask(Op.FORK, copy, 70, source=source)
    assert (reply.outcome, nothing) == (Outcome.DONE, None)
    assert now() + 68 <= reply.expires <= now() + 72
    line.sql("INSERT INTO t VALUES(2)")
    assert zygote.open(copy).sql("SELECT a FROM t").rows == [[1]]
    assert line.sql("SELECT a FROM t").rows == [[1], [2]]


def test_a_fork_of_one_at_rest_needs_no_cell(zygote: Zygote) -> None:
    source, line = zygote.create()
    line.sql("CREATE TABLE t(a); INSERT INTO t VALUES(1)")
    zygote.kill(source)
    copy = new_id()
    assert zygote.ask(Op.FORK, copy, 70, source=source)[0].outcome is Outcome.DONE
    assert zygote.open(copy).sql("SELECT a FROM t").rows == [[1]]


def test_there_is_no_fork_of_what_is_not_there(zygote: Zygote) -> None:
    copy = new_id()
    reply, _ = zygote.ask(Op.FORK, copy, 70, source=new_id())
    assert reply.outcome is Outcome.MISSING
    assert zygote.ask(Op.OPEN, copy)[0].outcome is Outcome.MISSING


def test_a_cell_that_does_not_stand_still_is_not_copied_and_goes_on(
    zygote: Zygote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nursery, "_STOP_S", 0.05)
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    try:
        with monkeypatch.context() as deaf:
            deaf.setattr(os, "kill", lambda *_: None)
            with pytest.raises(TimeoutError):
                nursery._stop(child)
        nursery._stop(child)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


# --- kept states ---


def states(zygote: Zygote, instance: bytes) -> list[str]:
    reply, _ = zygote.ask(Op.STATES, instance)
    assert reply.outcome is Outcome.DONE
    return [state["name"] for state in json.loads(reply.text)]


def test_a_database_goes_back_to_what_it_was(zygote: Zygote) -> None:
    instance, line = zygote.create()
    line.sql("CREATE TABLE t(a); INSERT INTO t VALUES(1)")
    reply, _ = zygote.ask(Op.KEEP, instance, name="one")
    assert reply.outcome is Outcome.DONE
    assert json.loads(reply.text)["bytes"] == 8192
    zygote.open(instance).sql("DROP TABLE t; CREATE TABLE u(a)")
    assert zygote.ask(Op.GO_BACK, instance, name="one")[0].outcome is Outcome.DONE
    assert zygote.open(instance).sql("SELECT a FROM t").rows == [[1]]
    assert states(zygote, instance) == ["one"]
    assert zygote.ask(Op.DROP, instance, name="one")[0].outcome is Outcome.DONE
    assert states(zygote, instance) == []


@pytest.mark.parametrize("op", [Op.KEEP, Op.GO_BACK, Op.DROP])
def test_a_cell_finishes_its_call_first_and_says_that_no_other_was_begun(
    zygote: Zygote, op: Op
) -> None:
    instance, line = zygote.create()
    line.sql("CREATE TABLE t(a)")
    assert zygote.ask(Op.KEEP, instance, name="one")[0].outcome is Outcome.DONE
    line = zygote.open(instance)
    calls = (
        call_frame(ENDLESS, timeout_ms=300, announce=True),
        call_frame("INSERT INTO t VALUES(1)"),
    )
    line.sock.sendall(b"".join(calls))
    assert line.next_frame() == (Kind.STARTED, b"")
    assert zygote.ask(op, instance, name="one")[0].outcome is Outcome.DONE
    assert line.answer().status == 408
    assert line.next_frame() == (Kind.RETIRED, b"")


def test_a_call_longer_than_usual_is_not_killed_for_it(start_zygote: Starter) -> None:
    zygote = start_zygote(constants={"RETIRE_S": 0.1, "_AFTER_S": 0.3})
    instance, line = zygote.create()
    for left_ms, status in ((0, None), (1500, 408)):
        line.sock.sendall(call_frame(ENDLESS, timeout_ms=1500, announce=True))
        assert line.next_frame() == (Kind.STARTED, b"")
        zygote.ask(Op.KEEP, instance, left_ms, name="one")
        answer = line.answer_if_any()
        assert (answer.status if answer else None) == status
        line = zygote.open(instance)


def test_copies_are_made_one_at_a_time_and_others_are_served_between(zygote: Zygote) -> None:
    instance, line = zygote.create()
    line.sql("CREATE TABLE t(a); INSERT INTO t VALUES(zeroblob(1000000)), (zeroblob(1000000))")
    line.sock.sendall(call_frame(ENDLESS, timeout_ms=300, announce=True))
    assert line.next_frame() == (Kind.STARTED, b"")
    for _ in range(30):  # all of them wait for the cell's end
        zygote.send(Op.KEEP, instance, name="one")
    zygote.receive()
    other = zygote.connect()
    other.send(control.encode_request(Op.STATUS, 7))
    assert control.decode_reply(other.recv(control.MAX_PACKET)).number == 7
    zygote.control.setblocking(False)
    early = 0
    try:
        while True:
            zygote.receive()
            early += 1
    except BlockingIOError:
        zygote.control.settimeout(20)
    assert early < 29
    for _ in range(29 - early):
        assert zygote.receive()[0].outcome is Outcome.DONE


def test_what_can_only_be_refused_ends_no_cell(zygote: Zygote) -> None:
    instance, line = zygote.create()
    for op in (Op.GO_BACK, Op.DROP):
        assert zygote.ask(op, instance, name="none")[0].outcome is Outcome.NO_STATE
    assert line.sql("SELECT 1").rows == [[1]]


def test_who_asks_for_a_line_meanwhile_gets_one_to_the_next_cell(zygote: Zygote) -> None:
    instance, line = zygote.create()
    line.sql("CREATE TABLE t(a)")
    line.sock.sendall(call_frame(ENDLESS, timeout_ms=300, announce=True))
    assert line.next_frame() == (Kind.STARTED, b"")
    keep = zygote.send(Op.KEEP, instance, name="one")
    opened = zygote.send(Op.OPEN, instance)
    got = [zygote.receive() for _ in range(2)]
    assert {reply.number for reply, _ in got} == {keep, opened}
    assert {reply.outcome for reply, _ in got} == {Outcome.DONE}
    (late,) = [line for _, line in got if line]
    assert late.sql("SELECT count(*) FROM t").rows == [[0]]


def test_a_cell_killed_in_its_work_has_not_all_in_its_file_and_the_next_one_has(
    zygote: Zygote,
) -> None:
    instance, line = zygote.create()
    line.sql("CREATE TABLE t(a); INSERT INTO t VALUES(1)")
    zygote.kill(instance)
    assert zygote.ask(Op.KEEP, instance, name="one")[0].outcome is Outcome.NOT_FOLDED
    zygote.open(instance)
    assert zygote.ask(Op.KEEP, instance, name="one")[0].outcome is Outcome.DONE


def test_a_cell_gets_the_pages_that_are_left(zygote: Zygote) -> None:
    instance, line = zygote.create()
    assert line.sql("PRAGMA max_page_count").rows == [[2560]]
    line.sql("CREATE TABLE t(a); INSERT INTO t VALUES(zeroblob(1000000))")
    zygote.ask(Op.KEEP, instance, name="one")
    line = zygote.open(instance)
    left = line.sql("PRAGMA max_page_count").rows[0][0]
    assert left == 2560 - line.sql("PRAGMA page_count").rows[0][0]
    full = line.sql("INSERT INTO t SELECT zeroblob(1000000) FROM json_each('[1,2,3,4,5,6,7,8,9]')")
    assert full.status == 507
    zygote.ask(Op.DROP, instance, name="one")
    assert zygote.open(instance).sql("PRAGMA max_page_count").rows == [[2560]]


def test_what_there_is_not_is_told_apart(zygote: Zygote) -> None:
    instance, _ = zygote.create()
    for op in (Op.GO_BACK, Op.DROP):
        assert zygote.ask(op, instance, name="none")[0].outcome is Outcome.NO_STATE
    for op in (Op.KEEP, Op.STATES, Op.GO_BACK, Op.DROP):
        assert zygote.ask(op, new_id(), name="none")[0].outcome is Outcome.MISSING
    for at in range(16):
        assert zygote.ask(Op.KEEP, instance, name=f"n{at}")[0].outcome is Outcome.DONE
    assert zygote.ask(Op.KEEP, instance, name="more")[0].outcome is Outcome.NO_ROOM


def test_all_that_may_be_kept_fits_one_answer(zygote: Zygote) -> None:
    instance, _ = zygote.create()
    names = [f"{at:02}" + "n" * 62 for at in range(16)]
    for name in names:
        assert zygote.ask(Op.KEEP, instance, name=name)[0].outcome is Outcome.DONE
    assert states(zygote, instance) == names


# --- kill ---


def test_a_kill_replies_when_the_cell_has_ended(zygote: Zygote) -> None:
    instance, line = zygote.create()
    line.sql("CREATE TABLE t(a)")
    cell = zygote.cell(instance)
    line.send(ENDLESS, timeout_ms=20_000)
    zygote.kill(instance)
    assert not is_running(cell)
    assert not Path(f"/proc/{cell}").exists()
    assert line.next_frame() is None


def test_a_kill_of_what_has_no_cell_is_done_at_once(zygote: Zygote) -> None:
    zygote.kill(new_id())
    instance, _ = zygote.create()
    zygote.kill(instance)
    zygote.kill(instance)


def test_a_kill_of_one_cell_spares_its_successor(zygote: Zygote) -> None:
    instance = new_id()
    first, _ = zygote.ask(Op.CREATE, instance, LATER)
    zygote.kill(instance)
    second, line = zygote.ask(Op.OPEN, instance)
    assert line is not None
    assert 0 != first.cell != second.cell != 0
    zygote.kill(instance, first.cell)
    assert line.sql("SELECT 1").rows == [[1]]
    zygote.kill(instance, second.cell)
    assert line.next_frame() is None


def test_every_line_to_a_cell_comes_with_the_same_number(zygote: Zygote) -> None:
    instance = new_id()
    first, _ = zygote.ask(Op.CREATE, instance, LATER)
    second, _ = zygote.ask(Op.OPEN, instance)
    assert first.cell == second.cell != 0


def test_a_cell_that_stands_still_is_killed_too(zygote: Zygote) -> None:
    instance, line = zygote.create()
    line.sql("SELECT 1")
    cell = zygote.cell(instance)
    os.kill(cell, signal.SIGSTOP)
    zygote.kill(instance)
    assert not is_running(cell)


def test_all_who_ask_for_the_same_kill_are_answered(zygote: Zygote) -> None:
    instance, _ = zygote.create()
    zygote.cell(instance)
    numbers = [zygote.send(Op.KILL, instance) for _ in range(3)]
    replies = [zygote.receive()[0] for _ in range(3)]
    assert [reply.number for reply in replies] == numbers
    assert {reply.outcome for reply in replies} == {Outcome.DONE}


def test_an_open_right_behind_a_kill_is_served_by_a_new_cell(zygote: Zygote) -> None:
    instance, line = zygote.create()
    line.sql("CREATE TABLE t(a); INSERT INTO t VALUES('kept')")
    zygote.send(Op.KILL, instance)
    zygote.send(Op.OPEN, instance)
    lines = [zygote.receive()[1] for _ in range(2)]
    (again,) = [found for found in lines if found]
    assert again.sql("SELECT a FROM t").rows == [["kept"]]


# --- status ---


def test_the_status_says_which_walls_stand_and_how_many_cells_there_are(
    start_zygote: Starter,
) -> None:
    zygote = start_zygote(blank_cells=2, max_live_cells=9)
    wait_until(lambda: zygote.status()["blank_cells"] == 2)
    zygote.create()
    status = wait_until(lambda: zygote.status()["blank_cells"] == 2 and zygote.status())
    assert status == {
        "walls": status["walls"],
        "instances": 1,
        "live_cells": 1,
        "blank_cells": 2,
        "max_live_cells": 9,
        "waiting": 0,
        "cell_deaths": 0,
        "deaths_by_cause": {},
        "reaped": 0,
        "reaper_silent_s": None,
        "versions": {"sqlite": apsw.sqlite_lib_version(), "apsw": apsw.apsw_version()},
    }
    walls = status["walls"]
    assert walls["landlock_abi"] >= 6
    assert (walls["seccomp"], walls["no_new_privs"], walls["hidden"]) == (True, True, True)
    assert (walls["user"], walls["capabilities"]) == (CELL_USER.uid, 0)
    assert len(walls["rlimits"]) == len(limits.RLIMITS)


def test_the_status_tells_of_what_the_cells_died(start_zygote: Starter) -> None:
    zygote = start_zygote()
    for number in (signal.SIGSEGV, signal.SIGSEGV, signal.SIGSYS):
        instance, line = zygote.create()
        line.sql("SELECT 1")
        os.kill(zygote.cell(instance), number)
    status = wait_until(lambda: (said := zygote.status())["cell_deaths"] == 3 and said)
    assert status["deaths_by_cause"] == {"SIGSEGV": 2, "SIGSYS": 1}


def test_the_status_tells_what_the_reaper_said(start_zygote: Starter) -> None:
    zygote = start_zygote()
    for count in (3, 0, 4):
        zygote.control.send(control.encode_request(Op.REAPED, 0, amount=count))
    status = wait_until(lambda: (said := zygote.status())["reaped"] == 7 and said)
    assert 0 <= status["reaper_silent_s"] < 10


def test_the_status_counts_what_a_zygote_before_it_made(start_zygote: Starter) -> None:
    zygote = start_zygote()
    soon = now() + 3
    for ttl_s in (3, LATER, LATER):
        zygote.create(ttl_s=ttl_s)
    assert zygote.status()["instances"] == 3
    zygote.stop()
    zygote.control = zygote.connect()
    zygote.start()
    wait_until(lambda: zygote.status()["instances"] == 2, 5, "one has expired")
    assert time.time() >= soon


def test_what_has_expired_is_forgotten_though_nobody_asks(folder: Path) -> None:
    watched = """
from sandbox import zygote
from sandbox.census import Census
zygote._CENSUS_S = 0.05
honest = Census.forget
def forget(self, now):
    honest(self, now)
    zygote.log.warning("census %d", len(self._expiring))
Census.forget = forget
"""
    with closing(Zygote(folder / "data")) as zygote:
        zygote.process = zygote.popen_program(watched + RUN)
        zygote.create(ttl_s=2)
        wait_until(lambda: "census 1" in zygote.log(), 5)
        wait_until(lambda: zygote.log().rstrip().endswith("census 0"), 5)


# --- blank cells ---


def test_blank_cells_are_kept_ready(start_zygote: Starter) -> None:
    zygote = start_zygote(blank_cells=3)
    wait_until(lambda: len(zygote.blanks()) == 3)
    before = set(zygote.blanks())
    instance, line = zygote.create()
    line.sql("SELECT 1")
    assert zygote.cell(instance) in before
    wait_until(lambda: len(zygote.blanks()) == 3)


def test_without_blank_cells_one_is_forked_when_it_is_asked_for(start_zygote: Starter) -> None:
    zygote = start_zygote(blank_cells=0)
    _, line = zygote.create()
    assert line.sql("SELECT 1").rows == [[1]]
    assert zygote.blanks() == []


def test_a_blank_cell_that_dies_is_replaced(start_zygote: Starter) -> None:
    zygote = start_zygote(blank_cells=1)
    (first,) = wait_until(zygote.blanks)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: zygote.blanks() not in ([], [first]))
    _, line = zygote.create()
    assert line.sql("SELECT 1").rows == [[1]]


def test_the_last_words_of_a_cell_are_in_the_log_with_its_end(folder: Path) -> None:
    with closing(Zygote(folder / "data")) as zygote:
        broken = "from sandbox.gate import Gate\nGate.tidy = lambda _: 1 / 0\n"
        zygote.process = zygote.popen_program(broken + RUN)
        for _ in range(20):
            instance, line = zygote.create()
            assert line.sql("SELECT 1").rows == [[1]]
            assert line.next_frame() == (Kind.RETIRED, b"")
            failed = f"of {instance.hex()} failed"
            log = wait_until(lambda failed=failed: failed in (log := zygote.log()) and log, 5)
            assert f"of {instance.hex()}: 'cell: ZeroDivisionError" in log


def test_a_creation_survives_the_death_of_the_blank_cell_it_is_given(
    start_zygote: Starter,
) -> None:
    zygote = start_zygote(blank_cells=1)
    (blank,) = wait_until(zygote.blanks)
    os.kill(blank, signal.SIGSTOP)
    instance, line = zygote.create()
    os.kill(blank, signal.SIGKILL)
    assert line.next_frame() is None
    assert zygote.open(instance).sql("SELECT 1").rows == [[1]]


@pytest.mark.parametrize("attempt", range(3))
def test_cells_that_all_die_at_once_do_not_hurt_the_zygote(
    start_zygote: Starter, attempt: int
) -> None:
    zygote = start_zygote(blank_cells=24)
    blanks = wait_until(lambda: len(zygote.blanks()) == 24 and zygote.blanks())
    for pid in blanks:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: zygote.status()["cell_deaths"] == 24)
    _, line = zygote.create()
    assert line.sql("SELECT 1").rows == [[1]]


# --- deaths ---


def test_a_death_by_signal_is_counted_and_logged(start_zygote: Starter) -> None:
    zygote = start_zygote(blank_cells=0)
    instance, line = zygote.create()
    line.sql("SELECT 1")
    os.kill(zygote.cell(instance), signal.SIGSYS)
    wait_until(lambda: zygote.status()["live_cells"] == 0)
    assert zygote.status()["cell_deaths"] == 1
    assert f"of {instance.hex()} died of SIGSYS" in zygote.log()


def test_a_cell_that_fails_is_counted_and_its_words_are_logged(start_zygote: Starter) -> None:
    zygote = start_zygote(blank_cells=0)
    instance, line = zygote.create()
    line.sql("SELECT 1")
    zygote.kill(instance)
    (zygote.place.folder(instance) / DATABASE).unlink()
    assert zygote.open(instance).next_frame() is None
    wait_until(lambda: zygote.status()["deaths_by_cause"] == {"exit": 1})
    assert "FileNotFoundError" in zygote.log()


@pytest.mark.parametrize("end", ["kill", "idle"])
def test_an_end_on_the_zygotes_own_word_is_no_death(start_zygote: Starter, end: str) -> None:
    zygote = start_zygote(blank_cells=0, cell_idle_s=1)
    instance, line = zygote.create()
    line.sql("SELECT 1")
    if end == "kill":
        zygote.kill(instance)
    wait_until(lambda: zygote.status()["live_cells"] == 0)
    assert zygote.status()["cell_deaths"] == 0
    assert "died" not in zygote.log()


# --- room ---


def test_at_the_cap_the_least_recently_used_cell_is_given_up(start_zygote: Starter) -> None:
    zygote = start_zygote(max_live_cells=2)
    (first, line), (second, _) = zygote.create(), zygote.create()
    line.sql("CREATE TABLE t(a); INSERT INTO t VALUES('kept')")
    zygote.control.send(control.encode_touch([first]))
    third = new_id()
    newest = zygote.ask_until_served(Op.CREATE, third, LATER)
    assert newest.sql("SELECT 1").rows == [[1]]
    wait_until(lambda: not zygote.has_cell(second))
    assert zygote.has_cell(first)
    assert zygote.has_cell(third)
    assert zygote.status()["live_cells"] == 2


def test_a_database_whose_cell_was_given_up_is_told_and_can_be_opened_again(
    start_zygote: Starter,
) -> None:
    zygote = start_zygote(max_live_cells=1, constants={"_WARM_S": 0.1, "_TICK_S": 0.1})
    first, line = zygote.create()
    line.sql("CREATE TABLE t(a); INSERT INTO t VALUES('kept')")
    zygote.ask_until_served(Op.CREATE, new_id(), LATER)
    assert line.next_frame() == (Kind.RETIRED, b"")
    again = zygote.ask_until_served(Op.OPEN, first)
    assert again.sql("SELECT a FROM t").rows == [["kept"]]
    assert zygote.status()["live_cells"] == 1


def test_when_all_cells_are_hot_the_next_database_is_busy_and_nothing_is_made(
    start_zygote: Starter,
) -> None:
    zygote = start_zygote(max_live_cells=1)
    first, line = zygote.create()
    other = new_id()
    front = zygote.connect()
    asked_at = time.monotonic()
    zygote.send(Op.CREATE, other, LATER)
    zygote.control.setblocking(False)

    def reply() -> control.Reply | None:
        front.send(control.encode_touch([first]))
        try:
            return control.decode_reply(zygote.control.recv(control.MAX_PACKET))
        except BlockingIOError:
            return None

    busy = wait_until(reply, 5)
    assert busy.outcome is Outcome.BUSY
    assert 1.0 < time.monotonic() - asked_at < 4
    assert not zygote.place.folder(other).exists()
    assert zygote.place.expires(other) is None
    assert line.sql("SELECT 1").rows == [[1]]


def test_a_database_that_has_a_cell_is_served_at_the_cap(start_zygote: Starter) -> None:
    zygote = start_zygote(max_live_cells=1)
    instance, _ = zygote.create()
    began = time.monotonic()
    assert zygote.open(instance).sql("SELECT 1").rows == [[1]]
    assert time.monotonic() - began < 1


def test_room_that_is_made_by_a_kill_goes_to_who_waits(start_zygote: Starter) -> None:
    zygote = start_zygote(max_live_cells=1)
    first, _ = zygote.create()
    zygote.cell(first)
    numbers = [zygote.send(Op.CREATE, new_id(), LATER), zygote.send(Op.KILL, first)]
    received = [zygote.receive() for _ in numbers]
    replies = {reply.number: (reply.outcome, line) for reply, line in received}
    assert {replies[number][0] for number in numbers} == {Outcome.DONE}
    line = replies[numbers[0]][1]
    assert line is not None
    assert line.sql("SELECT 1").rows == [[1]]


def test_a_cell_that_does_not_retire_is_killed_and_its_room_used(start_zygote: Starter) -> None:
    zygote = start_zygote(max_live_cells=1, cell_idle_s=1, constants={"RETIRE_S": 0.2})
    first, line = zygote.create()
    line.sql("SELECT 1")
    cell = zygote.cell(first)
    os.kill(cell, signal.SIGSTOP)
    wait_until(lambda: not is_running(cell), 8)
    _, line = zygote.create()
    assert line.sql("SELECT 1").rows == [[1]]


# --- idleness ---


def test_an_idle_cell_is_given_up_with_its_data_in_the_file(start_zygote: Starter) -> None:
    zygote = start_zygote(cell_idle_s=1)
    instance, line = zygote.create()
    line.sql("CREATE TABLE t(a); INSERT INTO t VALUES('kept')")
    assert line.next_frame() == (Kind.RETIRED, b"")
    wait_until(lambda: not zygote.has_cell(instance))
    folder = zygote.place.folder(instance)
    assert {path.name: path.stat().st_size > 0 for path in folder.iterdir()} == {
        FILES[0]: True,
        FILES[1]: False,
    }
    with closing(sqlite3.connect(folder / DATABASE)) as plain:
        assert plain.execute("SELECT a FROM t").fetchall() == [("kept",)]


def test_a_cell_that_is_said_to_be_used_is_not_idle(start_zygote: Starter) -> None:
    zygote = start_zygote(cell_idle_s=1)
    (used, _), (idle, _) = zygote.create(), zygote.create()
    cell = zygote.cell(used)

    def only_one_is_left() -> bool:
        zygote.control.send(control.encode_touch([used, new_id()]))
        return not zygote.has_cell(idle)

    wait_until(only_one_is_left, 5)
    assert zygote.cell(used) == cell


@pytest.mark.timeout(30)
def test_a_cell_that_reads_no_orders_does_not_make_the_zygote_wait(zygote: Zygote) -> None:
    instance = new_id()
    first, line = zygote.ask(Op.CREATE, instance, LATER)
    assert line is not None
    line.sql("SELECT 1")
    cell = zygote.cell(instance)
    os.kill(cell, signal.SIGSTOP)
    zygote.control.settimeout(5)
    for _ in range(5000):
        reply, opened = zygote.ask(Op.OPEN, instance)
        assert reply.outcome is Outcome.DONE
        assert opened is not None
        if reply.cell != first.cell:
            break
        opened.close()
    else:
        raise AssertionError("the cell still has the database")
    zygote.control.settimeout(20)
    assert not is_running(cell)
    assert opened.sql("SELECT 1").rows == [[1]]


# --- descriptors, threads, environment ---


def count_fds(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_no_descriptor_stays_behind(start_zygote: Starter) -> None:
    zygote = start_zygote(blank_cells=0)
    zygote.status()
    before = count_fds(zygote.pid)
    for _ in range(10):
        instance, first = zygote.create()
        second = zygote.open(instance)
        assert first.sql("SELECT 1").rows == [[1]]
        first.close()
        second.close()
        zygote.connect().close()
        zygote.kill(instance)
    wait_until(lambda: count_fds(zygote.pid) == before, 5)


def test_a_cell_holds_no_descriptor_of_its_siblings(zygote: Zygote) -> None:
    pairs = [zygote.create() for _ in range(3)]
    for instance, line in pairs:
        line.sql("CREATE TABLE t(a)")
        # The standard three, the leash, one line, two files.
        if AS_ROOT:
            assert count_fds(zygote.cell(instance)) == 7
    for instance, line in pairs:
        zygote.kill(instance)
        assert line.next_frame() is None


def test_the_zygote_and_its_cells_have_one_thread(zygote: Zygote) -> None:
    instance, line = zygote.create()
    line.sql("SELECT 1")
    for pid in (zygote.pid, zygote.cell(instance)):
        assert len(os.listdir(f"/proc/{pid}/task")) == 1


def test_the_zygote_and_its_cells_run_as_the_cells_user(zygote: Zygote) -> None:
    instance, line = zygote.create()
    line.sql("SELECT 1")
    for pid in (zygote.pid, zygote.cell(instance)):
        status = Path(f"/proc/{pid}/status").read_text()
        uid, gid = CELL_USER.uid, CELL_USER.gid
        assert f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n" in status
        assert f"Gid:\t{gid}\t{gid}\t{gid}\t{gid}\n" in status


def test_a_cell_is_jailed_before_its_first_answer(zygote: Zygote) -> None:
    instance, line = zygote.create()
    line.sql("SELECT 1")
    status = Path(f"/proc/{zygote.cell(instance)}/status").read_text()
    assert "NoNewPrivs:\t1\n" in status
    assert "Seccomp:\t2\n" in status


def test_the_zygote_knows_no_key(zygote: Zygote) -> None:
    environ = Path(f"/proc/{zygote.pid}/environ").read_bytes().split(b"\0")
    names = {entry.partition(b"=")[0].decode() for entry in environ if entry}
    mine = {row.variable for row in settings.ROWS}
    # Python itself may add the encoding it settled for.
    assert names <= mine | {"PATH", "LC_CTYPE"}
    assert not any("KEY" in name for name in names)


def test_the_proof_of_the_walls_leaves_nothing_behind(start_zygote: Starter) -> None:
    zygote = start_zygote()
    cells = zygote.place.cells
    for place in ("instances/*/*", "expiry/*/*", "due/*/*", "trash/*"):
        assert list(cells.glob(place)) == []


# --- the end ---


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_with_status_0_and_no_child_is_left(
    start_zygote: Starter, number: signal.Signals
) -> None:
    zygote = start_zygote(blank_cells=2)
    instance, line = zygote.create()
    line.sql("CREATE TABLE t(a); INSERT INTO t VALUES('kept')")
    wait_until(lambda: len(zygote.blanks()) == 2)
    children = list(zygote.children())
    assert zygote.process is not None
    began = time.monotonic()
    zygote.process.send_signal(number)
    assert zygote.process.wait(10) == 0
    assert time.monotonic() - began < 3
    assert not any(map(is_running, children))
    assert line.next_frame() == (Kind.RETIRED, b"")
    with closing(sqlite3.connect(zygote.place.folder(instance) / DATABASE)) as plain:
        assert plain.execute("SELECT a FROM t").fetchall() == [("kept",)]


def test_what_was_put_off_is_not_begun_by_a_zygote_that_ends(start_zygote: Starter) -> None:
    zygote = start_zygote()
    instance, line = zygote.create()
    line.sock.sendall(call_frame(ENDLESS, timeout_ms=600, announce=True))
    assert line.next_frame() == (Kind.STARTED, b"")
    zygote.send(Op.KEEP, instance, name="one")
    zygote.send(Op.OPEN, instance)
    zygote.connect().send(control.encode_request(Op.STATUS, 1))
    began = time.monotonic()
    assert zygote.stop() == 0
    assert time.monotonic() - began < nursery.RETIRE_S - 1
    assert not zygote.place.kept(instance).exists()


def test_it_stops_although_a_cell_does_not(start_zygote: Starter) -> None:
    zygote = start_zygote(constants={"RETIRE_S": 0.5})
    instance, line = zygote.create()
    line.sql("SELECT 1")
    cell = zygote.cell(instance)
    os.kill(cell, signal.SIGSTOP)
    assert zygote.stop() == 0
    wait_until(lambda: not is_running(cell), 3)


def test_its_cells_end_with_it_when_it_is_killed(start_zygote: Starter) -> None:
    zygote = start_zygote()
    instance, line = zygote.create()
    line.sql("CREATE TABLE t(a); INSERT INTO t VALUES('kept')")
    children = list(zygote.children())
    os.kill(zygote.pid, signal.SIGKILL)
    wait_until(lambda: not any(map(is_running, children)), 5)
    with closing(sqlite3.connect(zygote.place.folder(instance) / DATABASE)) as plain:
        assert plain.execute("SELECT a FROM t").fetchall() == [("kept",)]


def test_a_new_zygote_on_the_same_folder_opens_the_old_databases(start_zygote: Starter) -> None:
    first = start_zygote()
    instance, line = first.create()
    line.sql("CREATE TABLE t(a); INSERT INTO t VALUES('kept')")
    os.kill(first.pid, signal.SIGKILL)
    assert first.process is not None
    first.process.wait(10)
    # The listening socket is the starter's: askers merely wait in its queue.
    first.control = first.connect()
    first.start()
    assert first.open(instance).sql("SELECT a FROM t").rows == [["kept"]]


STARTER = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:], close_fds=False))"


def test_it_stops_when_its_starter_is_gone(start_zygote: Starter, folder: Path) -> None:
    zygote = Zygote(folder / "other")
    try:
        starter = zygote.popen(sys.executable, "-c", STARTER)
        zygote.status()
        zygote.create()
        pids = descendants(starter.pid)
        assert len(pids) >= 2
        starter.kill()
        starter.wait(10)
        wait_until(lambda: not any(map(is_running, pids)), 10)
        assert "is gone" in zygote.log()
    finally:
        zygote.close()


def descendants(pid: int) -> list[int]:
    found = []
    for child in children_of(pid):
        found += [child, *descendants(child)]
    return found


# --- a start that cannot be ---


def refused_start(zygote: Zygote, **chosen: str) -> subprocess.Popen[bytes]:
    zygote.env |= {f"WALKIN_{name.upper()}": value for name, value in chosen.items()}
    process = zygote.popen()
    process.wait(20)
    return process


def test_wrong_settings_are_all_named_and_end_it_with_status_2(folder: Path) -> None:
    with closing(Zygote(folder / "data")) as zygote:
        process = refused_start(zygote, blank_cells="many", cell_idle_s="0")
        assert process.returncode == 2
        assert "WALKIN_BLANK_CELLS='many'" in zygote.log()
        assert "WALKIN_CELL_IDLE_S='0'" in zygote.log()
        assert "Traceback" not in zygote.log()


@as_root
def test_a_folder_that_the_cells_user_cannot_reach_ends_it_with_status_2(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    with closing(Zygote(closed / "data")) as zygote:
        assert refused_start(zygote).returncode == 2
        assert "cannot reach" in zygote.log()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("landlock_abi", "lambda: 0", "Linux 6.12"),
        ("landlock", "lambda *_: (_ for _ in ()).throw(OSError('none'))", "Landlock: none"),
        ("seccomp", "lambda *_: (_ for _ in ()).throw(OSError('none'))", "seccomp: none"),
        # A kernel that says yes and does nothing.
        ("landlock", "lambda *_: None", "Landlock: a folder outside the jail could be opened"),
        ("seccomp", "lambda *_: None", "seccomp: a call that it refuses was carried out"),
    ],
)
def test_a_wall_that_does_not_stand_ends_it_with_status_3_before_any_question(
    folder: Path, name: str, value: str, words: str
) -> None:
    with closing(Zygote(folder / "data")) as zygote:
        changed = f"from sandbox import kernel\nkernel.{name} = {value}\n"
        process = zygote.popen_program(changed + RUN)
        assert process.wait(20) == 3
        assert words in zygote.log()
        assert "Traceback" not in zygote.log()


@pytest.mark.parametrize(
    "shortage",
    [
        "from sandbox import leash, proof; proof._PATIENCE_S = 0.1\n"
        "leash.send_report = lambda *_: __import__('time').sleep(60)\n",
        "from sandbox.gate import Gate; Gate._open = lambda _: 1 / 0\n",
        "import os; os.fork = lambda: (_ for _ in ()).throw(OSError('no more processes'))\n",
        "from sandbox.place import Place\n"
        "Place.create = lambda *_: (_ for _ in ()).throw(OSError('no room'))\n",
    ],
    ids=["slow", "broken", "no fork", "no disk"],
)
def test_a_first_cell_that_does_not_come_up_is_worth_another_start(
    folder: Path, shortage: str
) -> None:
    with closing(Zygote(folder / "data")) as zygote:
        process = zygote.popen_program(shortage + RUN)
        assert process.wait(20) == 1
        assert "walkin cannot start: " in zygote.log()
        assert "Traceback" not in zygote.log()


def test_the_filter_is_built_once_for_all_cells(folder: Path) -> None:
    counted = """
from sandbox import kernel
honest = kernel.build_filter
def build_filter(*words):
    print("filter built", flush=True)
    return honest(*words)
kernel.build_filter = build_filter
"""
    with closing(Zygote(folder / "data")) as zygote:
        zygote.process = zygote.popen_program(counted + RUN)
        for _ in range(3):
            _, line = zygote.create()
            assert line.sql("SELECT 1").rows == [[1]]
        assert zygote.log().count("filter built") == 1


def test_a_call_in_a_cell_that_was_ready_made_is_as_good_as_any(zygote: Zygote) -> None:
    _, line = zygote.create()
    line.sock.sendall(call_frame("SELECT 1") + call_frame("SELECT 2"))
    assert [line.answer().rows for _ in range(2)] == [[[1]], [[2]]]


FEW_DESCRIPTORS = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_a_zygote_without_descriptors_left_refuses_and_recovers(folder: Path) -> None:
    with closing(Zygote(folder / "data", blank_cells=0)) as zygote:
        zygote.process = zygote.popen(sys.executable, "-c", FEW_DESCRIPTORS)
        instance, line = zygote.create()
        line.sql("CREATE TABLE t(a); INSERT INTO t VALUES('kept')")
        hogs = [zygote.connect() for _ in range(60)]
        wait_until(lambda: count_fds(zygote.pid) >= 40)
        assert zygote.ask(Op.CREATE, new_id(), LATER)[0].outcome is not Outcome.DONE
        assert zygote.ask(Op.OPEN, instance)[0].outcome is not Outcome.DONE
        assert line.sql("SELECT a FROM t").rows == [["kept"]]
        for hog in hogs:
            hog.close()
        wait_until(lambda: count_fds(zygote.pid) < 20)
        assert zygote.open(instance).sql("SELECT a FROM t").rows == [["kept"]]
        assert zygote.create()[1].sql("SELECT 1").rows == [[1]]
        assert zygote.stop() == 0


# --- another end ---


def test_an_extended_database_tells_its_later_end(zygote: Zygote) -> None:
    instance = new_id()
    made, _ = zygote.ask(Op.CREATE, instance, 60)
    longer, line = zygote.ask(Op.EXTEND, instance, 30)
    assert (longer.outcome, line) == (Outcome.DONE, None)
    assert longer.expires == made.expires + 30
    assert longer.ends == made.ends + 30 * 1_000_000_000
    assert zygote.ask(Op.OPEN, instance)[0].expires == longer.expires


def test_a_database_ends_at_the_second_that_is_said(zygote: Zygote) -> None:
    instance = new_id()
    zygote.ask(Op.CREATE, instance, 60)
    at = now() + 30
    assert zygote.ask(Op.END_AT, instance, at)[0].expires == at
    assert zygote.ask(Op.OPEN, instance)[0].expires == at


def test_an_end_that_is_now_is_told_when_the_cell_is_gone(zygote: Zygote) -> None:
    before = zygote.status()["instances"]
    instance, line = zygote.create()
    assert line.sql("SELECT 1").rows == [[1]]
    reply, _ = zygote.ask(Op.END_AT, instance, 0)
    assert reply.outcome is Outcome.DONE
    assert not zygote.has_cell(instance)
    assert line.next_frame() is None
    assert zygote.status()["instances"] == before
    for op in (Op.OPEN, Op.EXTEND, Op.END_AT):
        assert zygote.ask(op, instance, 10)[0].outcome is Outcome.MISSING


def test_no_life_is_made_longer_than_the_longest(start_zygote: Starter) -> None:
    zygote = start_zygote(max_life_s=100)
    instance = (time.time_ns() // 1_000_000).to_bytes(6) + os.urandom(10)
    made, _ = zygote.ask(Op.CREATE, instance, 60)
    assert zygote.ask(Op.EXTEND, instance, 30)[0].outcome is Outcome.DONE
    for op, amount in ((Op.EXTEND, 30), (Op.END_AT, now() + 110)):
        assert zygote.ask(op, instance, amount)[0].outcome is Outcome.REFUSED
        assert zygote.place.expires(instance) == made.expires + 30


def test_what_nobody_has_made_has_no_end(zygote: Zygote) -> None:
    for op in (Op.EXTEND, Op.END_AT):
        assert zygote.ask(op, new_id(), 5)[0].outcome is Outcome.MISSING
