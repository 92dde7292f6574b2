"""The promise: no SQL makes a 500, outruns its clock, harms its file, or kills a cell unnoticed.

Callers send what the grammar makes up, each to a database of its own that lives for a while, so
that one call meets what earlier ones left there. A call that breaks the promise is shown with
everything its database had been sent.
"""

import collections
import itertools
import queue
import threading
import time
from collections.abc import Callable

import pytest

from tests.fuzz import clock, grammar
from tests.fuzz.grammar import Call
from tests.fuzz.verdict import check, deaths, faults
from tests.handles import Answer, Client, Service, wait_until

CALLERS = 3
#: Calls to one database before the next one is made.
LIFE = 60
#: The contract's 2.5 s, and what a busy machine takes to bring the answer over.
LATEST_S = 2.5 + 1.5

#: Nobody's clock is looked at while this runs: the kernel's timer ends the cell.
_DEAF = "SELECT trim(printf('%.*c', 900000, 'x'), printf('%.*c', 80000, 'y') || 'x')"


class Caller(threading.Thread):
    """Sends its calls one after the other; stops at the first that breaks the promise."""

    def __init__(self, service: Service) -> None:
        super().__init__(daemon=True)
        self.calls: queue.Queue[Call | None] = queue.Queue(20)
        self.codes: collections.Counter[str] = collections.Counter()
        self.fault: Exception | None = None
        self._service = service
        self._client: Client | None = None
        #: What each database was sent, by instance.
        self.sent: dict[str, list[bytes]] = {}
        self._sent: list[bytes] = []
        self._full = False

    def run(self) -> None:
        try:
            while (call := self.calls.get()) is not None:
                if self._client is None or len(self._sent) >= LIFE:
                    self._leave()
                    self._client = self._service.client()
                    assert self._send(Call(grammar.TABLES, None)).status == 200
                self._send(call)
            self._leave()
        except Exception as fault:
            sent = b"\n".join(self._sent).decode()
            fault.add_note(f"the last of these calls to one database:\n{sent}")
            self.fault = fault

    def _send(self, call: Call) -> Answer:
        assert self._client is not None
        self._sent.append(call.body)
        began = time.monotonic()
        answer = self._client.post(call.body)
        self.sent[self._client.instance] = self._sent
        took = time.monotonic() - began
        self.codes[answer.json.get("code", "ok")] += 1
        assert took < LATEST_S, f"{took:.2f} s: {answer}"
        check(answer)
        self._full |= answer.status == 507
        return answer

    def _leave(self) -> None:
        """Whatever was done to it, the file is sound. A full one may have no room to say so."""
        if self._client is not None:
            answer = self._send(Call("PRAGMA integrity_check(5)", None))
            assert self._full or answer.rows == [["ok"]], answer
            self._client.close()
            self._sent, self._full = [], False


def raise_faults(callers: list[Caller]) -> None:
    for caller in callers:
        if caller.fault:
            raise caller.fault


def run(callers: list[Caller]) -> collections.Counter[str]:
    """Share out what the grammar makes up until the time is over; return the codes answered."""
    turn = itertools.cycle(callers)
    began = time.monotonic()

    def send(call: Call) -> None:
        caller = next(turn)
        while True:
            raise_faults(callers)
            try:
                return caller.calls.put(call, timeout=1)
            except queue.Full:
                continue

    for caller in callers:
        caller.start()
    for call in grammar.sweep():
        send(call)
    clock.run_rounds(grammar.calls(), send)
    for caller in callers:
        caller.calls.put(None, timeout=60)
    for caller in callers:
        caller.join(60)
    raise_faults(callers)
    assert not any(caller.is_alive() for caller in callers)
    codes = sum((caller.codes for caller in callers), collections.Counter[str]())
    rate = codes.total() / (time.monotonic() - began)
    print(f"{codes.total()} calls, {rate:.0f} a second: {dict(codes.most_common())}")
    return codes


@clock.timeout
def test_no_sql_makes_a_500_outruns_its_clock_or_kills_a_cell_unnoticed(
    make_service: Callable[..., Service],
) -> None:
    service = make_service(ttl_s=86_400)
    callers = [Caller(service) for _ in range(CALLERS)]
    codes = run(callers)

    # One that is sure to end its cell, so that the log is known to tell.
    deaf = service.client()
    assert deaf.sql(_DEAF).code == "query_timeout"
    assert deaf.sql("SELECT 1").rows == [[1]]
    wait_until(lambda: (deaf.instance, "died of SIGALRM") in deaths(service.log()), 5, "the end")
    for fault in faults(service.log()):
        sent = [line for caller in callers for line in caller.sent.get(fault[:32], [])]
        print(fault, *(line.decode() for line in sent), sep="\n")
    assert faults(service.log()) == []
    if codes.total() > 500:
        # A grammar that rots makes nothing but syntax errors.
        assert codes["ok"] > 0.3 * codes.total(), codes
        assert {
            "unknown_column",
            "invalid_args",
            "forbidden_keyword",
            "not_authorized",
        } <= codes.keys()


_CELL = "cell 7 of " + "0a" * 16
_ANSWER = (
    "WARNING walkin.front: out of time: the cell's own timer ended it"
    f" request_id={'0b' * 16} instance={'0a' * 16}\n"
)
_DEATH = f"WARNING walkin.zygote: {_CELL} died of "


@pytest.mark.parametrize(
    "log",
    [
        _DEATH + "SIGALRM\n",
        _ANSWER + (_DEATH + "SIGALRM\n") * 2,
        _ANSWER + _DEATH + "SIGSYS\n",
        _ANSWER + f"WARNING walkin.zygote: {_CELL} failed\n",
        f"ERROR walkin.zygote: {_CELL}: 'ValueError'\n",
        "Traceback (most recent call last):\n",
    ],
)
def test_what_must_not_be_in_the_log_is_seen_there(log: str) -> None:
    assert faults(_ANSWER + _DEATH + "SIGALRM\n" + log if log.startswith("E") else log)


def test_the_end_of_a_call_that_outran_its_clock_is_no_fault() -> None:
    assert faults(_ANSWER + _DEATH + "SIGALRM\n") == []
    assert faults(_ANSWER + _DEATH + "SIGALRM: a call that outran its clock\n") == []
