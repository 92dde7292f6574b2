"""The promise: callers who keep us waiting are let go in time, and however many, shut nobody out.

Those who say nothing, dribble, or do not read, each alone and 10,000 together; and more
connections than there may be. Memory stays bounded, and others are served meanwhile.
"""

import re
import resource
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.handles import Service, cpu_s, wait_until
from tests.wire import (
    CHUNKED,
    GET,
    HEALTH,
    HOST,
    POST,
    Raw,
    besiege,
    health_delay_s,
    most_memory_mb,
    request,
)
from walkin.patience import HEAD_S

#: Times are judged here.
pytestmark = pytest.mark.alone

ENDLESS = (
    b'{"sql": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)'
    b' SELECT max(i) FROM n"}'
)
MEGABYTE = b"""{"sql": "SELECT printf('%.*c', 1000000, 'x')"}"""


@pytest.fixture(scope="module")
def besieged() -> Iterator[Service]:
    with besiege() as service:
        yield service


# --- who says nothing, dribbles, or does not read ---

DRIBBLING = {
    "nothing": (b"", b""),
    "a head": (GET, b"x"),
    "a head behind an answer": (HEALTH + GET, b"x"),
    "a head behind a pipeline": (HEALTH * 20 + GET, b"x"),
    "empty lines": (HEALTH, b"\r\n"),
    "a body": (POST + b"Content-Length: 100\r\n\r\n", b" "),
    "chunks": (CHUNKED, b"1\r\n \r\n"),
    "an extension": (CHUNKED + b"1;", b"x"),
    "trailers": (CHUNKED + b"2\r\n{}\r\n0\r\n", b"x"),
    "a body that is not asked for": (
        b"POST /nope HTTP/1.1\r\n" + HOST + b"Content-Length: 100\r\n\r\n",
        b"x",
    ),
    "answers not read": (request(MEGABYTE) * 5, b""),
    "answers not read, while more is asked": (request(MEGABYTE) * 5, HEALTH),
}
#: In how many seconds a connection of each kind is over: its clock, and what a busy machine adds.
_OVER_S = HEAD_S + 3
_IDLE = 10_000
_IDLER = """
import resource, socket, sys, time

_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
idle = []
for number in range(int(sys.argv[1])):
    one = socket.socket()
    one.bind((f"127.0.1.{1 + number % 4}", 0))
    one.connect(("127.0.0.1", int(sys.argv[2])))
    one.settimeout(float(sys.argv[3]))
    idle.append(one)
print("open", flush=True)
print(sum(one.recv(1) == b"" for one in idle), flush=True)
"""


class Siege(NamedTuple):
    """What was seen while all of them were at it."""

    ended_s: dict[str, float]
    health_s: list[float]
    grown_mb: float
    idle_ended: int


@pytest.fixture(scope="module")
def siege(besieged: Service) -> Siege:
    """All who dribble and 10,000 who say nothing, at once, until all of them are let go."""
    before = most_memory_mb(besieged)
    port = besieged.url.rpartition(":")[2]
    idler = [sys.executable, "-c", _IDLER, str(_IDLE), port, str(_OVER_S)]
    began = time.monotonic()
    attackers = {}
    for name, (begin, _) in DRIBBLING.items():
        attackers[name] = Raw(besieged, receive_buffer=4096 if "not read" in name else 0)
        attackers[name].send(begin)
    ended: dict[str, float] = {}
    delays = []
    with subprocess.Popen(idler, stdout=subprocess.PIPE, text=True) as idle:
        while len(ended) < len(attackers) and time.monotonic() - began < 2 * _OVER_S:
            for name, attacker in attackers.items():
                if name not in ended and _is_over(attacker, DRIBBLING[name][1], "read" in name):
                    ended[name] = time.monotonic() - began
            delays.append(health_delay_s(besieged))
            time.sleep(0.2)
        said = idle.communicate(timeout=2 * _OVER_S)[0].split()
    for attacker in attackers.values():
        attacker.close()
    assert said[0] == "open"
    return Siege(ended, delays, most_memory_mb(besieged) - before, int(said[1]))


def _is_over(attacker: Raw, more: bytes, deaf: bool) -> bool:
    """Say a little more; whether the other side has hung up."""
    try:
        attacker.sock.setblocking(False)
        attacker.sock.send(more)
        while not deaf and attacker.sock.recv(65_536):
            pass
    except BlockingIOError:
        pass
    except OSError:
        return True
    else:
        if not deaf:
            return True
    poll = select.poll()
    poll.register(attacker.sock, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


@pytest.mark.parametrize("name", DRIBBLING)
def test_whoever_keeps_us_waiting_is_let_go_in_time(siege: Siege, name: str) -> None:
    assert siege.ended_s[name] < _OVER_S


def test_ten_thousand_who_say_nothing_are_let_go_in_time(siege: Siege) -> None:
    assert siege.idle_ended == _IDLE


def test_others_are_served_meanwhile(siege: Siege) -> None:
    assert statistics.median(siege.health_s) < 0.1
    assert max(siege.health_s) < 2


def test_all_of_them_cost_a_bounded_amount_of_memory(siege: Siege) -> None:
    assert siege.grown_mb < 150


# --- too many ---


def test_beyond_the_bound_those_who_say_nothing_make_room(
    make_service: Callable[..., Service],
) -> None:
    service = make_service(max_connections=64)
    idle = [Raw(service, f"127.0.1.{1 + number % 8}") for number in range(200)]
    client = service.client()
    assert [client.sql("SELECT 1").status for _ in range(5)] == [200] * 5
    assert all(caller.is_closed() for caller in idle[:130])
    idle[-1].send(HEALTH)
    assert idle[-1].answer().status == 200
    for caller in idle:
        caller.close()


def test_one_address_cannot_take_the_place_of_others(make_service: Callable[..., Service]) -> None:
    service = make_service(max_connections=64)
    patient = Raw(service)
    idle = [Raw(service, "127.0.1.1") for _ in range(200)]
    patient.send(HEALTH)
    assert patient.answer().status == 200
    for caller in (patient, *idle):
        caller.close()


def test_an_address_with_too_many_calls_in_work_is_told_to_come_back(
    make_service: Callable[..., Service],
) -> None:
    service = make_service(max_connections=16)
    working = [Raw(service, "127.0.1.1") for _ in range(4)]
    for caller in working:
        caller.send(request(ENDLESS))
    wait_until(lambda: sum(title.startswith("walkin: cell ") for title in service.family()) == 4)
    refused = Raw(service, "127.0.1.1")
    answer = refused.answer()
    assert (answer.status, answer.json["code"]) == (503, "busy")
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["connection"] == "close"
    assert answer.json["request_id"] == answer.headers["x-request-id"]
    assert refused.is_closed()
    assert service.client().sql("SELECT 1").status == 200
    assert [caller.answer().status for caller in working] == [408] * 4
    for caller in (refused, *working):
        caller.close()


def test_a_trusted_proxy_may_have_all_connections(make_service: Callable[..., Service]) -> None:
    service = make_service(max_connections=16, trusted_proxies="127.0.0.1")
    kept = []
    for _ in range(12):
        kept.append(Raw(service))
        kept[-1].send(HEALTH)
        assert kept[-1].answer().status == 200
    for caller in kept:
        caller.send(HEALTH)
        assert caller.answer().status == 200
    for caller in kept:
        caller.close()


def kernel_memory_mb() -> float:
    """What the kernel holds for all TCP connections of this machine (proc(5), sockstat)."""
    found = re.search(r"TCP: .* mem (\d+)", Path("/proc/net/sockstat").read_text())
    assert found
    return int(found[1]) * resource.getpagesize() / (1 << 20)


def test_answers_that_nobody_takes_do_not_fill_the_kernels_memory(besieged: Service) -> None:
    ask = (b"GET /openapi.json HTTP/1.1\r\n" + HOST + b"\r\n") * 80
    before = kernel_memory_mb()
    deaf = [Raw(besieged, receive_buffer=2048) for _ in range(50)]
    for one in deaf:
        one.send(ask)
    (pid,) = besieged.pids("front desk")
    wait_until(lambda: (used := cpu_s(pid)) and not time.sleep(0.3) and cpu_s(pid) == used, 10)
    # Each asked for 6 MB and more; left alone the kernel keeps some 4 MB of them.
    assert kernel_memory_mb() - before < 25
    for one in deaf:
        one.close()
