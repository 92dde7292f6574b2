"""Callers who number their rows and remember what was acknowledged of them.

Whatever is done to the service: each answer is one of the contract's, each acknowledged row is
there until its database expires and not a moment longer, and no row is there twice.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable

import httpx

from sandbox.codes import CODES
from tests.handles import Answer, Client, Service
from tests.hostile.sql_case import ANY_SQL_ERROR

#: How long before its expiry a database is left for the next.
_LEAVE_S = 2.0
_PAUSE_S = 0.01
#: How often it keeps a state, goes back to it, reads, and writes else.
_KEEP, _GO_BACK, _READ = 0.03, 0.06, 0.25
#: Answers to calls that nothing is wrong with, and what must come with them.
_GOOD = {"ok", "cell_lost", "busy", "query_timeout", "quota_exceeded", "instance_expired"}
#: A clock of the test's and one of the service's are read a moment apart.
_SKEW_S = 0.5


class Database:
    """One database as its tenant knows it."""

    def __init__(self, client: Client) -> None:
        assert client.token is not None
        assert client.expires is not None
        self.token: str = client.token
        self.instance = client.instance
        self.expires = client.expires
        self.acknowledged: set[int] = set()
        #: Nobody knows whether these were written: their calls ended without a word on it.
        self.unsure: set[int] = set()
        #: Somebody has tampered with it on purpose: it may be anything but harmful.
        self.is_spoilt = False
        #: What was acknowledged when the state was kept that it can go back to, if one was.
        self.kept: set[int] | None = None
        self.unsure_when_kept: set[int] = set()

    def may_have_gone_back(self) -> None:
        """Nobody knows what it has: that of before or what was kept."""
        self.unsure |= self.acknowledged - (self.kept or set())
        self.acknowledged &= self.kept or set()


class Tenant(threading.Thread):
    """One caller: a database after the other, calls without end."""

    def __init__(self, service: Service, number: int, seed: int) -> None:
        super().__init__(name=f"tenant {number}", daemon=True)
        self._service = service
        self._chance = random.Random(seed * 1000 + number)
        self._over = threading.Event()
        self._next = 0
        self._client = Client("")
        self.database: Database | None = None
        self.left: list[Database] = []
        self.breaches: list[str] = []
        self.codes: Counter[str] = Counter()
        #: How often a database of its own went back to a kept state.
        self.went_back = 0
        #: Set while connections may break: someone holds or kills the front desk.
        self.may_break = threading.Event()
        #: Set while the disk may be full or closed to writing.
        self.may_be_full = threading.Event()

    def end(self) -> None:
        """Stop after the call in progress."""
        self._over.set()

    def run(self) -> None:
        self._client = Client(self._service.url)
        try:
            while not self._over.wait(self._chance.uniform(0, 2 * _PAUSE_S)):
                self._step()
        except Exception as fault:
            self.breaches.append(f"{self.name} broke down: {fault!r}")
        finally:
            self._client.close()

    def _step(self) -> None:
        if self.database is None or self.database.expires - time.time() < _LEAVE_S:
            self._move()
            return
        chance = self._chance.random()
        if chance < _KEEP:
            self._keep(self.database)
        elif chance < _GO_BACK and self.database.kept is not None:
            self._go_back(self.database)
        elif chance < _READ:
            self._read(self.database)
        else:
            self._insert(self.database, 1 if self._chance.random() < 0.7 else 3)

    def _call(self, sql: str, args: list[int] | None = None) -> Answer | None:
        return self._ask(sql, lambda: self._client.sql(sql, args))

    def _checkpoint(self, method: str, more: str = "") -> Answer | None:
        path = "/session/checkpoints/one" + more
        headers = {"X-Walkin-Session": self._client.token or ""}
        ask = self._client.http.request
        return self._ask(path, lambda: Answer(ask(method, path, headers=headers)))

    def _ask(self, what: str, ask: Callable[[], Answer]) -> Answer | None:
        """Return the answer; None if the connection broke."""
        may_break = self.may_break.is_set()
        asked = time.time()
        try:
            answer = ask()
        except httpx.TransportError as cause:
            if not may_break and not self.may_break.is_set():
                self.breaches.append(f"connection lost: {cause!r}")
            self._client.close()
            self._client = Client(self._service.url, self._client.token)
            self._client.expires = self.database.expires if self.database else None
            return None
        self._judge(answer, asked, what)
        return answer

    def _judge(self, answer: Answer, asked: float, what: str) -> None:
        code = "ok" if answer.status in (200, 201) else str(answer.json.get("code"))
        self.codes[code] += 1
        database = self.database
        expired = database is not None and time.time() > database.expires - _SKEW_S
        wrong = ""
        is_spoilt = database is not None and database.is_spoilt
        if code not in _GOOD and not (is_spoilt and code in ANY_SQL_ERROR):
            wrong = "not an answer to a sound call"
        elif code != "ok" and CODES[code].status != answer.status:
            wrong = "another status than the table's"
        elif code == "busy" and not answer.headers.get("retry-after", "").isdigit():
            wrong = "no Retry-After"
        elif code == "instance_expired" and not expired and not (database and database.is_spoilt):
            wrong = "gone before its time"
        elif code == "quota_exceeded" and not self.may_be_full.is_set():
            wrong = "it is not full"
        elif code == "ok" and database and asked > database.expires + _SKEW_S:
            wrong = "alive after its expiry"
        if wrong:
            self.breaches.append(f"{wrong}: {answer!r} to {what!r}")
        if code == "instance_expired" and database is self.database and database is not None:
            self.left.append(database)
            self.database = None
        if code == "busy":
            self._over.wait(self._chance.uniform(0.02, 0.2))

    def _move(self) -> None:
        """Leave the database for a new one."""
        if self.database is not None:
            self.left.append(self.database)
        self.database = None
        self._client.token = None
        answer = self._call("CREATE TABLE kept(n INTEGER)")
        if answer is not None and answer.status == 200:
            self.database = Database(self._client)

    def _insert(self, database: Database, count: int) -> None:
        numbers = list(range(self._next, self._next + count))
        self._next += count
        values = ", ".join(["(?)"] * count)
        sql = f"INSERT INTO kept VALUES {values}"
        answer = self._call(f"BEGIN; {sql}; COMMIT" if count > 1 else sql, numbers)
        if answer is not None and answer.status == 200:
            database.acknowledged.update(numbers)
        elif answer is None or answer.code in ("cell_lost", "query_timeout", "quota_exceeded"):
            database.unsure.update(numbers)

    def _keep(self, database: Database) -> None:
        answer = self._checkpoint("PUT")
        kept = answer is not None and answer.status in (200, 201)
        # Without a word on it nobody knows which state is kept: it is left alone.
        database.kept = set(database.acknowledged) if kept else None
        database.unsure_when_kept = set(database.unsure)

    def _go_back(self, database: Database) -> None:
        answer = self._checkpoint("POST", "/restore")
        database.may_have_gone_back()
        if answer is not None and answer.status == 200:
            # What came since is gone; what nobody was sure of then is not surer now.
            database.unsure = set(database.unsure_when_kept)
            self.went_back += 1

    def _read(self, database: Database) -> None:
        answer = self._call("SELECT n FROM kept")
        if answer is not None and answer.status == 200 and not database.is_spoilt:
            self.breaches += wrong_rows(database, [row[0] for row in answer.rows])


def wrong_rows(database: Database, found: list[int]) -> list[str]:
    """Return what is wrong with the rows that a database has."""
    wrong = []
    lost = database.acknowledged - set(found)
    if lost:
        wrong.append(f"rows lost in {database.instance}: {sorted(lost)[:10]}")
    if len(found) != len(set(found)):
        wrong.append(f"rows twice in {database.instance}")
    if set(found) - database.acknowledged - database.unsure:
        wrong.append(f"rows of nobody in {database.instance}")
    return wrong
