"""The turnstile: exact counts in a moving window, alone and shared, and shut when in doubt."""

import asyncio
import contextlib
import re
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.handles import wait_until
from tests.walkin.fakes import Clock, Run
from walkin.errors import Refused
from walkin.settings import Settings
from walkin.throttle import Throttle

Make = Callable[..., Settings]
Count = Callable[[str], object]

WITHIN_S = 5.0


class Store:
    """A real redis-server on a loopback port of its own."""

    def __init__(self, program: str, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._command = [program, "--port", str(self.port), "--bind", "127.0.0.1"]
        self._command += ["--save", "", "--appendonly", "no", "--dir", str(folder)]
        self.url = f"redis://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(self._answers, 10, "redis-server answers")

    def _answers(self) -> bool:
        assert self.process.poll() is None
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as sock:
                sock.sendall(b"PING\r\n")
                return sock.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def stop(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait(10)


@pytest.fixture
def store(tool: Callable[[str], str], tmp_path: Path) -> Iterator[Store]:
    started = Store(tool("redis-server"), tmp_path)
    yield started
    started.stop()


@contextlib.asynccontextmanager
async def throttle_for(settings: Settings) -> AsyncIterator[Throttle]:
    """A throttle whose connections to a store, if it has one, are closed again."""
    throttle = Throttle(settings)
    try:
        yield throttle
    finally:
        bridge = getattr(throttle._limiter.storage, "bridge", None)
        if bridge is not None:
            await bridge.storage.aclose(close_connection_pool=True)


async def refusal(count: Count, client: str = "a") -> Refused | None:
    """The refusal of one more call, None if it is let through."""
    try:
        await count(client)  # type: ignore[misc]
    except Refused as refused:
        return refused
    return None


async def let_through(count: Count, tries: int, client: str = "a") -> int:
    """How many of some calls are let through."""
    return [await refusal(count, client) for _ in range(tries)].count(None)


def retry_after(refused: Refused | None) -> int:
    """The seconds that a refusal says to wait."""
    assert refused is not None
    said = refused.headers["Retry-After"]
    assert re.fullmatch(r"[1-9][0-9]*", said)
    return int(said)


# --- exact counts ---


def test_60_calls_a_minute_are_let_through_and_the_61st_is_not(
    run: Run, make_settings: Make
) -> None:
    async def main() -> None:
        throttle = Throttle(make_settings())
        assert await let_through(throttle.count_request, 60) == 60
        refused = await refusal(throttle.count_request)
        assert refused is not None
        assert (refused.row.name, refused.row.status) == ("rate_limited", 429)

    run(main())


def test_10_creations_a_minute_are_let_through_and_the_11th_is_not(
    run: Run, make_settings: Make
) -> None:
    async def main() -> None:
        throttle = Throttle(make_settings())
        assert await let_through(throttle.count_creation, 10) == 10
        refused = await refusal(throttle.count_creation)
        assert refused is not None
        assert (refused.row.name, refused.row.status) == ("creation_limited", 429)

    run(main())


def test_calls_at_the_same_moment_are_counted_exactly(run: Run, make_settings: Make) -> None:
    async def main() -> None:
        throttle = Throttle(make_settings())
        answers = await asyncio.gather(*(refusal(throttle.count_request) for _ in range(200)))
        assert answers.count(None) == 60

    run(main())


def test_refused_calls_do_not_count(make_settings: Make, clock: Clock) -> None:
    async def main() -> None:
        throttle = Throttle(make_settings(requests_per_min=2))
        assert await let_through(throttle.count_request, 2) == 2
        clock.forward(59)
        assert await let_through(throttle.count_request, 100) == 0
        clock.forward(1.1)
        assert await let_through(throttle.count_request, 3) == 2

    asyncio.run(main())


def test_clients_do_not_share_a_count(make_settings: Make) -> None:
    async def main() -> None:
        throttle = Throttle(make_settings(requests_per_min=3))
        assert await let_through(throttle.count_request, 9, "192.0.2.1") == 3
        assert await let_through(throttle.count_request, 9, "192.0.2.2") == 3

    asyncio.run(main())


def test_a_client_named_like_a_longer_one_has_its_own_count(make_settings: Make) -> None:
    async def main() -> None:
        throttle = Throttle(make_settings(requests_per_min=1))
        for client in ("2001:db8::/64", "2001:db8:0:1::/64", "None", "1.2.3.4", "1.2.3.4/3"):
            assert await let_through(throttle.count_request, 2, client) == 1, client

    asyncio.run(main())


def test_calls_and_creations_do_not_share_a_count(make_settings: Make) -> None:
    async def main() -> None:
        throttle = Throttle(make_settings(requests_per_min=5, creations_per_min=5))
        assert await let_through(throttle.count_request, 9) == 5
        assert await let_through(throttle.count_creation, 9) == 5

    asyncio.run(main())


@pytest.mark.parametrize("name", ["request", "creation"])
def test_zero_is_no_limit(make_settings: Make, name: str) -> None:
    async def main() -> None:
        throttle = Throttle(make_settings(**{f"{name}s_per_min": 0}))
        count = getattr(throttle, f"count_{name}")
        assert await let_through(count, 1000) == 1000

    asyncio.run(main())


def test_no_limit_on_calls_leaves_the_one_on_creations(make_settings: Make) -> None:
    async def main() -> None:
        throttle = Throttle(make_settings(requests_per_min=0))
        assert await let_through(throttle.count_creation, 20) == 10

    asyncio.run(main())


# --- the window moves ---


async def window_moves(throttle: Throttle, clock: Clock) -> None:
    """Ten early, fifty late: after a minute the ten are free again, and no more."""
    assert await let_through(throttle.count_request, 10) == 10
    clock.forward(50)
    assert await let_through(throttle.count_request, 99) == 50
    clock.forward(9.9)
    assert await let_through(throttle.count_request, 99) == 0
    clock.forward(0.2)
    assert await let_through(throttle.count_request, 99) == 10
    clock.forward(49.7)
    assert await let_through(throttle.count_request, 99) == 0
    clock.forward(0.2)
    assert await let_through(throttle.count_request, 99) == 50


def test_the_window_moves(make_settings: Make, clock: Clock) -> None:
    async def main() -> None:
        await window_moves(Throttle(make_settings()), clock)

    asyncio.run(main())


def test_no_minute_has_more_than_the_limit(make_settings: Make, clock: Clock) -> None:
    async def main() -> None:
        throttle = Throttle(make_settings(requests_per_min=5))
        passed = []
        for _ in range(300):
            clock.forward(1.7)
            if await refusal(throttle.count_request) is None:
                passed.append(clock.now)
        assert len(passed) > 30
        assert [b for a, b in zip(passed, passed[5:], strict=False) if b - a < 60] == []

    asyncio.run(main())


# --- many clients ---


def test_whoever_has_not_called_for_a_minute_is_forgotten(
    make_settings: Make, clock: Clock
) -> None:
    async def main() -> None:
        throttle = Throttle(make_settings(requests_per_min=2))
        kept = throttle._limiter.storage.events  # type: ignore[attr-defined]
        for number in range(1000):
            await throttle.count_request(f"client {number}")
        clock.forward(30)
        await throttle.count_request("client 0")
        clock.forward(31)
        assert await let_through(throttle.count_request, 2, "client 0") == 1
        assert len(kept) == 1

    asyncio.run(main())


def test_of_a_client_no_more_is_kept_than_his_limit(make_settings: Make, clock: Clock) -> None:
    async def main() -> None:
        throttle = Throttle(make_settings(requests_per_min=2))
        for _ in range(50):
            await let_through(throttle.count_request, 5)
            clock.forward(20)
        (calls,) = throttle._limiter.storage.events.values()  # type: ignore[attr-defined]
        assert len(calls) == 2

    asyncio.run(main())


def test_a_call_leaves_nothing_to_be_done_after_it(make_settings: Make) -> None:
    async def main() -> None:
        throttle = Throttle(make_settings())
        for number in range(1000):
            await throttle.count_request(f"client {number}")
            assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


# --- when to come back ---


async def retry_is_right(throttle: Throttle, clock: Clock) -> None:
    """What is said is enough, and a second less is not."""
    assert await let_through(throttle.count_request, 1) == 1
    clock.forward(20.5)
    assert await let_through(throttle.count_request, 2) == 2
    wait_s = retry_after(await refusal(throttle.count_request))
    assert wait_s == 40
    clock.forward(wait_s - 1)
    assert await refusal(throttle.count_request) is not None
    clock.forward(1)
    assert await let_through(throttle.count_request, 9) == 1


def test_whoever_waits_as_told_is_let_through(make_settings: Make, clock: Clock) -> None:
    async def main() -> None:
        await retry_is_right(Throttle(make_settings(requests_per_min=3)), clock)

    asyncio.run(main())


@pytest.mark.parametrize("passed_s", [0.0, 0.4, 1.0, 30.2, 58.9, 59.0, 59.5, 59.999])
def test_the_wait_is_a_whole_number_of_seconds_and_never_none(
    make_settings: Make, clock: Clock, passed_s: float
) -> None:
    async def main() -> None:
        throttle = Throttle(make_settings(creations_per_min=1))
        await throttle.count_creation("a")
        clock.forward(passed_s)
        wait_s = retry_after(await refusal(throttle.count_creation))
        assert 60 - passed_s <= wait_s < 61 - passed_s + 0.001

    asyncio.run(main())


# --- a shared count ---


def test_two_front_desks_share_one_count_exactly(
    run: Run, make_settings: Make, store: Store
) -> None:
    settings = make_settings(rate_limit_store=store.url)

    async def main() -> None:
        async with throttle_for(settings) as one, throttle_for(settings) as two:
            assert await let_through(one.count_request, 40) == 40
            assert await let_through(two.count_request, 40) == 20
            assert await let_through(one.count_request, 5) == 0
            assert await let_through(one.count_creation, 7) == 7
            assert await let_through(two.count_creation, 7) == 3

    run(main())


def test_two_front_desks_at_the_same_moment_share_one_count_exactly(
    make_settings: Make, store: Store
) -> None:
    settings = make_settings(rate_limit_store=store.url)

    async def main() -> None:
        async with throttle_for(settings) as one, throttle_for(settings) as two:
            tries = [refusal(throttle.count_request) for _ in range(60) for throttle in (one, two)]
            assert (await asyncio.gather(*tries)).count(None) == 60

    asyncio.run(main())


def test_a_crowd_of_clients_at_the_same_moment_is_let_through(
    make_settings: Make, store: Store
) -> None:
    async def main() -> None:
        async with throttle_for(make_settings(rate_limit_store=store.url)) as throttle:
            crowd = [refusal(throttle.count_request, f"10.0.0.{host}") for host in range(250)]
            assert (await asyncio.gather(*crowd)).count(None) == 250

    asyncio.run(main())


def test_the_shared_window_moves(make_settings: Make, store: Store, clock: Clock) -> None:
    async def main() -> None:
        async with throttle_for(make_settings(rate_limit_store=store.url)) as throttle:
            await window_moves(throttle, clock)

    asyncio.run(main())


def test_whoever_waits_as_told_is_let_through_by_the_shared_count(
    make_settings: Make, store: Store, clock: Clock
) -> None:
    settings = make_settings(rate_limit_store=store.url, requests_per_min=3)

    async def main() -> None:
        async with throttle_for(settings) as throttle:
            await retry_is_right(throttle, clock)

    asyncio.run(main())


# --- no count, nobody in ---


async def shut(*counts: Count) -> None:
    """Nobody is let through, and told so in time."""
    for count in counts:
        began = time.monotonic()
        refused = await refusal(count)
        assert time.monotonic() - began < WITHIN_S
        assert refused is not None
        assert (refused.row.name, refused.row.status) == ("busy", 503)
        assert retry_after(refused) >= 1


def test_without_a_store_nobody_is_let_through(run: Run, make_settings: Make) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: refuses connections
        url = f"redis://127.0.0.1:{nobody.getsockname()[1]}"

        async def main() -> None:
            async with throttle_for(make_settings(rate_limit_store=url)) as throttle:
                await shut(throttle.count_request, throttle.count_creation)

        run(main())


def test_when_the_store_dies_nobody_is_let_through(make_settings: Make, store: Store) -> None:
    async def main() -> None:
        async with throttle_for(make_settings(rate_limit_store=store.url)) as throttle:
            assert await let_through(throttle.count_request, 1) == 1
            store.stop()
            await shut(throttle.count_request)

    asyncio.run(main())


def test_when_the_store_hangs_nobody_is_let_through(make_settings: Make, store: Store) -> None:
    async def main() -> None:
        async with throttle_for(make_settings(rate_limit_store=store.url)) as throttle:
            assert await let_through(throttle.count_request, 1) == 1
            store.process.send_signal(signal.SIGSTOP)
            await shut(throttle.count_request)

    asyncio.run(main())


def test_a_store_that_never_says_a_word_lets_nobody_through(make_settings: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}"

        async def main() -> None:
            async with throttle_for(make_settings(rate_limit_store=url)) as throttle:
                await shut(throttle.count_request)

        asyncio.run(main())


def test_what_is_no_store_lets_nobody_through(make_settings: Make) -> None:
    async def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(babble, "127.0.0.1", 0)
        url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, throttle_for(make_settings(rate_limit_store=url)) as throttle:
            await shut(throttle.count_request)

    asyncio.run(main())


def test_when_the_store_is_back_calls_are_let_through_again(
    make_settings: Make, store: Store
) -> None:
    async def main() -> None:
        async with throttle_for(make_settings(rate_limit_store=store.url)) as throttle:
            assert await let_through(throttle.count_request, 1) == 1
            store.stop()
            assert await let_through(throttle.count_request, 1) == 0
            store.start()
            assert await let_through(throttle.count_request, 61) == 60

    asyncio.run(main())


# --- what the client is told of where it stands ---


def test_the_policy_names_the_limits_that_there_are(make_settings: Make) -> None:
    def policy(**limits: int) -> str:
        return Throttle(make_settings(**limits)).policy.decode()

    calls, creations = '"calls";q=60;w=60', '"creations";q=10;w=60'
    forks = '"forks";q=64;w=60'
    assert policy() == f"{calls}, {creations}, {forks}"
    assert policy(creations_per_min=0) == f"{calls}, {forks}"
    assert policy(requests_per_min=0, forks_per_min=0) == creations
    assert policy(requests_per_min=0, creations_per_min=0, forks_per_min=0) == ""


async def standing_is_right(throttle: Throttle, clock: Clock) -> None:
    """With three calls a minute, of which one is made now and two in half a minute."""
    said: list[bytes] = []
    await throttle.count_request("a", said)
    clock.forward(30)
    for _ in range(2):
        await throttle.count_request("a", said)
    with pytest.raises(Refused):
        await throttle.count_request("a", said)
    clock.forward(30.5)
    await throttle.count_request("a", said)
    told = [re.fullmatch(r'"calls";r=(\d+);t=(\d+)', item.decode()) for item in said]
    numbers = [(int(found[1]), int(found[2])) for found in told if found]
    assert [left for left, _ in numbers] == [2, 1, 0, 0, 0]
    # A store keeps time to the microsecond only, so a second may be rounded up to the next.
    assert [wait_s for _, wait_s in numbers] == pytest.approx([60, 30, 30, 30, 30], abs=1)


def test_each_call_is_told_what_is_left_and_when_there_is_more(
    make_settings: Make, clock: Clock
) -> None:
    async def main() -> None:
        await standing_is_right(Throttle(make_settings(requests_per_min=3)), clock)

    asyncio.run(main())


def test_a_shared_count_tells_the_same(make_settings: Make, store: Store, clock: Clock) -> None:
    async def main() -> None:
        settings = make_settings(requests_per_min=3, rate_limit_store=store.url)
        async with throttle_for(settings) as throttle:
            await standing_is_right(throttle, clock)

    asyncio.run(main())


def test_without_limits_nothing_is_told(make_settings: Make) -> None:
    async def main() -> None:
        throttle = Throttle(make_settings(requests_per_min=0, creations_per_min=0))
        said: list[bytes] = []
        await throttle.count_request("a", said)
        await throttle.count_creation("a", said)
        assert said == []

    asyncio.run(main())
