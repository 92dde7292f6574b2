"""The promise: hostile callers leave nothing behind, in memory, descriptors, folders or processes.

A crowd (load.py) keeps one service busy for SOAK_S seconds: a minute, or an hour in
`make soak`. Memory is compared under the same load, early and late, by the median of many samples:
an allocator keeps what a peak once needed, and only a leak goes on growing. The rest is
counted when everybody has gone and every database has expired.
"""

import collections
import contextlib
import os
import re
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz.verdict import deaths, faults
from tests.handles import Service, wait_until
from tests.soak.load import CALLERS, Caller, make_calls

SOAK_S = float(os.environ.get("SOAK_S", "60"))
#: Until all caches are full and every kind of call has been made a few times.
WARM_UP_S = max(30.0, SOAK_S / 5)
STANDING = ("front desk", "zygote", "reaper")
_TTL_S = 12
_GROWTH = 1.10
#: What the crowd must have met: every wall at least once.
_KINDS = """
    query_timeout out_of_memory quota_exceeded sql_error syntax_error constraint_failed
    not_authorized forbidden_keyword instance_expired instance_not_found invalid_json
    body_too_large transaction_open
"""


def memory_kib(pid: int) -> int:
    """Memory of a process that no file backs; everyone may read it."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"RssAnon:\s+(\d+)", status)[0])


def descriptors(pid: int) -> int | None:
    """How many it has open; the front desk's only root may count."""
    try:
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except PermissionError:
        return None


def zombies(pids: set[int]) -> list[str]:
    """Children of these processes that have ended and were not collected."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().rpartition(")")
        except OSError:
            continue
        state, parent, *_ = rest.split()
        if state == "Z" and int(parent) in pids:
            found.append(name)
    return found


class State:
    """What stands when nobody calls: processes by title, descriptors by process."""

    def __init__(self, service: Service) -> None:
        self.family = sorted(service.family())
        pids = {role: service.pids(role) for role in STANDING}
        self.descriptors = {role: [descriptors(pid) for pid in pids[role]] for role in STANDING}
        self.pids = pids

    def __eq__(self, other: object) -> bool:
        return isinstance(other, State) and vars(self) == vars(other)

    def __repr__(self) -> str:
        return repr(vars(self))

    __hash__ = None  # type: ignore[assignment]


def at_rest(service: Service) -> State:
    """The state once the blank cells are there and nothing is left of any database."""

    def rested() -> State | None:
        state = State(service)
        cells = [title for title in state.family if "cell" in title]
        return state if cells == ["walkin: blank cell"] * 8 and not service.traces() else None

    return wait_until(rested, _TTL_S + 20, "nothing left of any database")


@pytest.mark.timeout(SOAK_S + 150)
def test_hostile_callers_leave_nothing_behind(make_service: Callable[..., Service]) -> None:
    calls = make_calls(1500)
    service = make_service(ttl_s=_TTL_S, max_live_cells=64, cell_idle_s=5)
    assert service.process is not None
    service.client().sql("SELECT 1")  # opens what stays open
    before = at_rest(service)

    stop = threading.Event()
    crowd = [Caller(service, calls, stop, number) for number in range(CALLERS)]
    for caller in crowd:
        caller.start()
    pids = {role: pid for role in STANDING for pid in before.pids[role]}
    samples: dict[str, list[int]] = {role: [] for role in STANDING}
    began = time.monotonic()
    try:
        while (now := time.monotonic() - began) < SOAK_S:
            time.sleep(1)
            _raise_faults(crowd)
            if now > WARM_UP_S:
                for role, pid in pids.items():
                    samples[role].append(memory_kib(pid))
    finally:
        stop.set()
        for caller in crowd:
            caller.join(30)
        print(*faults(service.log()), sep="\n")
    assert not any(caller.is_alive() for caller in crowd)
    memory = {role: _compare(taken) for role, taken in samples.items()}
    codes = _report(crowd, service, memory)
    for role, (early, late) in memory.items():
        assert late <= early * _GROWTH, (role, early, late, samples[role])
    _raise_faults(crowd)
    at_rest(service)
    with contextlib.suppress(AssertionError):  # the last connections may still be closing
        wait_until(lambda: State(service) == before)
    assert State(service) == before
    assert zombies({os.getpid(), service.process.pid, *pids.values()}) == []
    assert faults(service.log()) == []
    # The crowd did what it is for, and honest callers were served meanwhile.
    assert codes["ok"] > 0.3 * codes.total(), codes
    assert codes.keys() >= set(_KINDS.split())
    assert "died of SIGALRM" in {how for _, how in deaths(service.log())}


def _raise_faults(crowd: list[Caller]) -> None:
    for caller in crowd:
        if caller.fault:
            raise caller.fault


def _report(
    crowd: list[Caller], service: Service, memory: dict[str, tuple[int, int]]
) -> collections.Counter[str]:
    """Print what happened in one line; return how often each code was the answer."""
    codes = sum((caller.codes for caller in crowd), collections.Counter[str]())
    died = collections.Counter(how for _, how in deaths(service.log()))
    grown = [f"{role} {early} -> {late} KiB" for role, (early, late) in memory.items()]
    print(
        f"{codes.total()} calls in {SOAK_S:.0f} s: {dict(codes.most_common())};",
        f"cells {dict(died)}; {'; '.join(grown)}",
    )
    return codes


def _compare(samples: list[int]) -> tuple[int, int]:
    """The median of the first third of the samples and of the last."""
    third = max(1, len(samples) // 3)
    return round(statistics.median(samples[:third])), round(statistics.median(samples[-third:]))


def test_memory_that_goes_on_growing_is_told_from_noise() -> None:
    noise = [20_000 + 1500 * (at % 3) for at in range(120)]
    early, late = _compare(noise)
    assert late <= early * _GROWTH
    early, late = _compare([one + 40 * at for at, one in enumerate(noise)])
    assert late > early * _GROWTH
