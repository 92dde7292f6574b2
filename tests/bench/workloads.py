"""What everybody is asked: by wrk again and again, by callers of our own step by step.

Rounds go around the peers, so that a machine which slows down meanwhile slows all of them.
"""

from dataclasses import dataclass
from functools import partial

from tests.bench.load import Caller, Figures, closed_loop, once, wrk
from tests.bench.peers import ITEMS, Args, Peer, Walkin
from tests.bench.run import Run

WALKIN, TWO, BARE = "walkin", "walkin, 2 workers", "bare Starlette"
SQLD, RQLITE, DATASETTE = "sqld", "rqlite", "Datasette"
EVERYBODY = (WALKIN, BARE, SQLD, RQLITE, DATASETTE)
WITH_TABLES = (WALKIN, SQLD, RQLITE, DATASETTE)


@dataclass(frozen=True)
class Workload:
    """One statement, asked over so many connections and databases."""

    row: str
    title: str
    sql: str
    connections: int
    databases: int
    who: tuple[str, ...]
    #: How many rows each answer must have; a write has none and is counted afterwards.
    rows: int = 1
    takes_key: bool = False


WORKLOADS = (
    Workload("select_1", "`SELECT 1`, 1 connection", "SELECT 1", 1, 1, EVERYBODY),
    Workload("select_32", "`SELECT 1`, 32 connections", "SELECT 1", 32, 1, (*EVERYBODY, TWO)),
    Workload("select_128", "`SELECT 1`, 128 connections", "SELECT 1", 128, 1, EVERYBODY),
    Workload(
        "select_many",
        "`SELECT 1`, 32 connections over 32 databases",
        *("SELECT 1", 32, 32, (WALKIN, TWO, SQLD)),
    ),
    Workload(
        "many_128",
        "`SELECT 1`, 128 connections over 32 databases",
        *("SELECT 1", 128, 32, (WALKIN, SQLD)),
    ),
    Workload(
        "point",
        "point read by key, 32 connections over 32 databases",
        *("SELECT * FROM item WHERE id = ?", 32, 32, WITH_TABLES),
        takes_key=True,
    ),
    Workload(
        "insert",
        "one-row INSERT with arguments, 32 connections over 32 databases",
        *("INSERT INTO kv(v) VALUES(?)", 32, 32, (WALKIN, TWO, SQLD, RQLITE)),
        rows=0,
        takes_key=True,
    ),
    Workload(
        "read",
        f"{ITEMS:,} rows of 5 columns read, 8 connections over 8 databases",
        *("SELECT * FROM item", 8, 8, WITH_TABLES),
        rows=ITEMS,
    ),
)


def ask_again_and_again(run: Run, workload: Workload) -> None:
    for _ in range(run.size.rounds):
        for peer in run.among(workload.who):
            run.attempt(workload.row, peer.name, partial(_wrk, run, workload, peer))


def _wrk(run: Run, workload: Workload, peer: Peer) -> Figures:
    databases = run.stock[peer.name][: workload.databases]
    calls: list[tuple[str, str, Args]] = [
        # 389 and 1,000 have no common divisor: as many keys as databases.
        (database, workload.sql, (at * 389 % ITEMS + 1,) if workload.takes_key else ())
        for at, database in enumerate(databases)
    ]

    async def try_each(caller: Caller) -> None:
        """An answer of 200 may still be a refusal: look into one of each before counting them."""
        for call in calls:
            assert len(await peer.sql(caller, *call)) == workload.rows, call

    async def written(caller: Caller) -> int:
        counts = [
            await peer.sql(caller, database, "SELECT count(*) FROM kv")
            for database in set(databases)
        ]
        return sum(int(count) for ((count,),) in counts)

    once(try_each)
    writes = workload.rows == 0
    before = once(written) if writes else 0
    figures = wrk(
        peer.port,
        [peer.request(*call) for call in calls],
        workload.connections,
        run.size.seconds,
    )
    if writes:
        # A row more for each call that was under way when wrk ended.
        surplus = once(written) - before - figures["requests"]
        assert 0 <= surplus <= workload.connections, f"{surplus} rows more than answers"
    if workload.rows > 1:
        figures["rows_rate"] = figures["rate"] * workload.rows
    return figures


CREATIONS = "create + CREATE TABLE, 8 connections (sqld: its namespace alone)"
_TABLE = "CREATE TABLE note(id INTEGER PRIMARY KEY, topic INTEGER, body TEXT)"


def create(run: Run) -> None:
    for _ in range(run.size.rounds):
        for peer in run.among((WALKIN, SQLD)):
            sql = _TABLE if isinstance(peer, Walkin) else ""
            run.attempt("create", peer.name, partial(_create, run, peer, sql))


def _create(run: Run, peer: Peer, sql: str) -> Figures:
    figures, fault = closed_loop(lambda caller: peer.create(caller, sql), 8, run.size.seconds)
    assert not fault, fault
    return figures


SESSIONS = "a session: create, table, 20 inserts, 5 reads, join; {} at once"
_JOIN = "SELECT a.body, b.body FROM note a JOIN note b ON a.topic = b.topic AND a.id < b.id"


async def _session(peer: Peer, caller: Caller) -> None:
    """What an agent with something to work out does in a database of its own."""
    database = await peer.create(caller, _TABLE)
    for number in range(20):
        insert = "INSERT INTO note(topic, body) VALUES(?, ?)"
        await peer.sql(caller, database, insert, (number % 5, f"note {number}"))
    for key in range(1, 6):
        rows = await peer.sql(caller, database, "SELECT body FROM note WHERE id = ?", (key,))
        assert rows == [[f"note {key - 1}"]], rows
    assert len(await peer.sql(caller, database, _JOIN)) == 5 * 6


def hold_sessions(run: Run) -> None:
    for callers in run.size.sessions:
        for _ in range(run.size.rounds):
            for peer in run.among((WALKIN, SQLD)):
                run.attempt(f"session_{callers}", peer.name, partial(_hold, run, peer, callers))


def _hold(run: Run, peer: Peer, callers: int) -> Figures:
    figures, fault = closed_loop(partial(_session, peer), callers, run.size.seconds)
    assert not fault, fault
    return figures
