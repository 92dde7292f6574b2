"""Callers who number their rows and remember what was acknowledged of them.

Whatever is done to the service: each answer is one of the contract's, each acknowledged row is
there until its database expires and not a moment longer, and no row is there twice.
"""

import random
import threading
import time
from collections import Counter

import httpx

from sandbox.codes import CODES
from tests.handles import Answer, Client, Service
from tests.hostile.sql_case import ANY_SQL_ERROR

#: How long before its expiry a database is left for the next.
_LEAVE_S = 2.0
_PAUSE_S = 0.01
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
        elif self._chance.random() < 0.8:
            self._insert(self.database, 1 if self._chance.random() < 0.7 else 3)
        else:
            self._read(self.database)

    def _call(self, sql: str, args: list[int] | None = None) -> Answer | None:
        """Return the answer; None if the connection broke."""
        may_break = self.may_break.is_set()
        asked = time.time()
        try:
            answer = self._client.sql(sql, args)
        except httpx.TransportError as cause:
            if not may_break and not self.may_break.is_set():
                self.breaches.append(f"connection lost: {cause!r}")
            self._client.close()
            self._client = Client(self._service.url, self._client.token)
            self._client.expires = self.database.expires if self.database else None
            return None
        self._judge(answer, asked, sql)
        return answer

    def _judge(self, answer: Answer, asked: float, sql: str) -> None:
        code = "ok" if answer.status == 200 else str(answer.json.get("code"))
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
            self.breaches.append(f"{wrong}: {answer!r} to {sql!r}")
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
