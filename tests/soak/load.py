"""A crowd of callers, some of whom mean well: what they do, and what they were answered."""

import base64
import collections
import json
import random
import threading
import time
from collections.abc import Callable

import hypothesis

from tests.fuzz import clock, grammar
from tests.fuzz.verdict import check
from tests.handles import Answer, Client, Service
from tests.hostile.sql import QUICK, SLOW
from tests.hostile.sql_case import ANY_SQL_ERROR, FURNITURE
from tests.wire import Raw, request

CALLERS = 6
#: Pauses keep a small machine from refusing everybody for want of room.
_PAUSE_S = 0.03
#: A call left behind by a caller who hung up, one's own, and a busy machine.
_LATEST_S = 8.0


_ENDLESS = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
#: Those that take all of their two seconds are a few among many.
_ATTACKS = [*SLOW.values(), *list(QUICK.values()) * 3]
_BODIES = [b"", b"{", b"[]", b'{"sql": 1}', b'{"sql": "SELECT 1", "x": 1}', b"x" * 9000, b"\xff"]
#: What may be said to anything: a database is full, gone or without its tables, a machine busy.
_ANYTIME = {"quota_exceeded", "instance_expired", "busy", "query_timeout", *ANY_SQL_ERROR}


def make_calls(number: int) -> list[grammar.Call]:
    """Calls of the fuzzers' grammar, made beforehand: it takes more time than sending them."""
    made: list[grammar.Call] = []

    @hypothesis.settings(clock.ROUND, max_examples=number)
    @hypothesis.given(grammar.calls())
    def keep(call: grammar.Call) -> None:
        made.append(call)

    keep()
    return made


class Caller(threading.Thread):
    """One of the crowd: does one thing after the other, by chance, until told to stop."""

    def __init__(
        self, service: Service, calls: list[grammar.Call], stop: threading.Event, number: int
    ) -> None:
        super().__init__(daemon=True)
        self.codes: collections.Counter[str] = collections.Counter()
        self.fault: Exception | None = None
        self._service = service
        self._calls = calls
        self._stop_asked = stop
        self._chance = random.Random(number)
        self._client = Client(service.url)
        self._sums: collections.Counter[str] = collections.Counter()
        #: Tokens of databases, with the second at which each is over.
        self._left: collections.deque[tuple[str, int]] = collections.deque(maxlen=500)

    def run(self) -> None:
        acts: list[tuple[Callable[[], None], int]] = [
            (self._work, 30),
            (self._attack, 14),
            (self._reopen, 2),
            (self._babble, 30),
            (self._hang_up, 3),
            (self._abandon, 6),
            (self._come_too_late, 4),
            (self._forge, 4),
            (self._send_rubbish, 5),
        ]
        try:
            while not self._stop_asked.wait(self._chance.uniform(0, 2 * _PAUSE_S)):
                (act,) = self._chance.choices(
                    [act for act, _ in acts], [often for _, often in acts]
                )
                act()
        except Exception as fault:
            self.fault = fault
        self._client.close()

    def _judge(self, answer: Answer, began: float, what: str) -> str:
        took = time.monotonic() - began
        assert took < _LATEST_S, f"{took:.1f} s: {what[:200]}"
        try:
            check(answer)
        except Exception as fault:
            fault.add_note(
                f"{answer} to {what[:3000]} in {self._client.token and self._client.instance}"
            )
            raise
        code = answer.json.get("code", "ok")
        self.codes[code] += 1
        return str(code)

    def _sql(self, sql: str, args: object = None) -> Answer:
        began = time.monotonic()
        answer = self._client.sql(sql, args)
        self._judge(answer, began, sql)
        return answer

    def _renew(self) -> None:
        self._take_up((None, None))
        if self._sql(grammar.TABLES + "CREATE TABLE IF NOT EXISTS k(v)").status != 200:
            self._client.token = None

    def _ready(self) -> bool:
        """Have a database that will be there for a while."""
        if not self._client.token or (self._client.expires or 0) < time.time() + 5:
            self._renew()
        return self._client.token is not None

    def _work(self) -> None:
        """An honest call: what was put in comes out again."""
        if self._ready():
            value = self._chance.randbytes(20).hex()
            sql = "DELETE FROM k; INSERT INTO k VALUES(?); SELECT v FROM k"
            answer = self._sql(sql, [value])
            if answer.status == 200:
                assert answer.rows == [[value]]
            elif answer.code in ("instance_expired", "quota_exceeded"):
                self._renew()

    def _attack(self) -> None:
        """One of the hostile cases, in a database of its own that nobody comes back to."""
        mine = self._put_aside()
        if self._sql(FURNITURE).status == 200:
            case = self._chance.choice(_ATTACKS)
            for sql in case.setup:
                self._sql(sql)
            answer = self._sql(case.sql, case.args)
            assert (answer.code or "ok") in {case.code or "ok", *_ANYTIME}, (answer, case)
        self._take_up(mine)

    def _reopen(self) -> None:
        """R-Tree keeps its node open after an error; the pragma makes the cell open it all anew."""
        if self._ready():
            self._sql("INSERT INTO r(a, b, c) VALUES(70, 0, 0), (80, 1, 0)")
            self._sql("PRAGMA recursive_triggers = 1")
            self._sql("SELECT 1")

    def _babble(self) -> None:
        if self._ready():
            call = self._chance.choice(self._calls)
            began = time.monotonic()
            self._judge(self._client.post(call.body), began, call.sql)

    def _hang_up(self) -> None:
        """Leave in the middle of a call that takes all its time, or of a request."""
        if self._ready():
            body = json.dumps({"sql": _ENDLESS}).encode()
            whole = request(body, f"X-Walkin-Session: {self._client.token}")
            raw = Raw(self._service)
            end = len(whole) if self._chance.random() < 0.5 else self._chance.randrange(len(whole))
            raw.send(whole[:end])
            self._stop_asked.wait(self._chance.uniform(0, 0.3))
            raw.close()
            self.codes["hung up"] += 1

    def _abandon(self) -> None:
        """Make a database and never come back to it."""
        mine = self._put_aside()
        self._sql("CREATE TABLE t(a); INSERT INTO t VALUES(zeroblob(100000))")
        self._take_up(mine)

    def _put_aside(self) -> tuple[str | None, int | None]:
        """Be without a database for a while."""
        mine = self._client.token, self._client.expires
        self._client.token = None
        return mine

    def _take_up(self, mine: tuple[str | None, int | None]) -> None:
        """Go back to one's own database and leave the other for ever."""
        if self._client.token:
            self._left.append((self._client.token, self._client.expires or 0))
        self._client.token, self._client.expires = mine

    def _as(self, token: str) -> str:
        began = time.monotonic()
        other = Client(self._service.url, token)
        try:
            return self._judge(other.sql("SELECT 1"), began, token)
        finally:
            other.close()

    def _come_too_late(self) -> None:
        if self._left and self._left[0][1] < time.time():
            assert self._as(self._left.popleft()[0]) == "instance_expired"

    def _forge(self) -> None:
        if not self._ready():
            return
        token = bytearray(base64.urlsafe_b64decode(str(self._client.token)[4:] + "="))
        token[self._chance.randrange(len(token))] ^= 1 << self._chance.randrange(8)
        forged = "wkn_" + base64.urlsafe_b64encode(token).decode().rstrip("=")
        assert self._as(forged) == "instance_not_found"

    def _send_rubbish(self) -> None:
        began = time.monotonic()
        self._judge(self._client.post(self._chance.choice(_BODIES)), began, "rubbish")
