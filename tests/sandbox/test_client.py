"""Asking the zygote: answers reach their askers, broken connections are replaced, nothing leaks."""

import asyncio
import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox import control
from sandbox.client import AsyncClient
from sandbox.control import Op, Outcome
from sandbox.errors import InstanceMissing, NodeBusy, SandboxError, ZygoteGone
from tests.handles import wait_until
from tests.sandbox.handles import Answering, FakeZygote, done, fake_zygote, own_fds

ID = bytes(range(16))


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Fail unless the same descriptors are open afterwards as before."""
    before = own_fds()
    yield
    wait_until(lambda: own_fds() == before, 2, f"{own_fds()} like {before}")


class Lines:
    """Answers CREATE and OPEN with real lines, whose other ends it keeps."""

    def __init__(self) -> None:
        self.ends: list[socket.socket] = []

    def __call__(self, packet: bytes) -> tuple[bytes, list[int]]:
        request = control.decode_request(packet)
        mine, theirs = socket.socketpair()
        self.ends.append(mine)
        reply = control.encode_reply(Outcome.DONE, request.number, 77, cell=5, ends=9_500_000_000)
        return reply, [theirs.detach()]

    def close(self) -> None:
        for end in self.ends:
            end.close()


@pytest.fixture
def lines() -> Iterator[Lines]:
    made = Lines()
    yield made
    made.close()


def hang_up(_: bytes) -> None:
    return None


def silent(_: bytes) -> tuple[bytes, list[int]]:
    return b"", []


def answer_with(outcome: Outcome) -> Answering:
    def answer(packet: bytes) -> tuple[bytes, list[int]]:
        number = control.decode_request(packet).number
        return control.encode_reply(outcome, number), []

    return answer


def at_first(first: Answering, then: Answering) -> Answering:
    """Answer the first packet in one way and all later ones in another."""
    waiting = [first]

    def answer(packet: bytes) -> tuple[bytes, list[int]] | None:
        return (waiting.pop() if waiting else then)(packet)

    return answer


def use(run_dir: Path, act: Callable[[AsyncClient], Any], patience_s: float = 5.0) -> Any:
    """Run one coroutine with a client of its own."""

    async def session() -> Any:
        client = AsyncClient(run_dir, patience_s)
        try:
            return await act(client)
        finally:
            client.close()

    return asyncio.run(session())


def test_a_creation_brings_a_line_that_works(tmp_path: Path, lines: Lines) -> None:
    with fake_zygote(tmp_path, lines) as zygote:
        line = use(tmp_path, lambda client: client.ask_create(ID, 1234)).line
        with line:
            line.send(b"through")
            assert lines.ends[0].recv(100) == b"through"
        (request,) = zygote.requests
    assert (request.op, request.instance, request.amount) == (Op.CREATE, ID, 1234)


def test_an_opening_brings_a_line_both_ends_and_the_cells_number(
    tmp_path: Path, lines: Lines
) -> None:
    with fake_zygote(tmp_path, lines) as zygote:
        opened = use(tmp_path, lambda client: client.ask_open(ID))
        opened.line.close()
        assert (opened.expires, opened.ends, opened.cell) == (77, 9.5, 5)
        assert [request.op for request in zygote.requests] == [Op.OPEN]


def test_a_kill_names_the_cell_that_is_meant(tmp_path: Path) -> None:
    with fake_zygote(tmp_path, done) as zygote:
        use(tmp_path, lambda client: client.ask_kill(ID, 7))
        (request,) = zygote.requests
    assert (request.op, request.instance, request.cell) == (Op.KILL, ID, 7)


def test_a_line_is_not_inherited_by_programs(tmp_path: Path, lines: Lines) -> None:
    with fake_zygote(tmp_path, lines):
        line = use(tmp_path, lambda client: client.ask_create(ID, 1)).line
    with line:
        assert not line.get_inheritable()


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        (Outcome.MISSING, InstanceMissing),
        (Outcome.BUSY, NodeBusy),
        (Outcome.FAILED, NodeBusy),
        (Outcome.DONE, NodeBusy),
    ],
)
def test_an_answer_without_a_line_is_an_error(
    tmp_path: Path, outcome: Outcome, error: type[SandboxError]
) -> None:
    with fake_zygote(tmp_path, answer_with(outcome)), pytest.raises(SandboxError) as raised:
        use(tmp_path, lambda client: client.ask_open(ID))
    assert type(raised.value) is error


def test_a_line_with_a_refusal_is_closed(tmp_path: Path, lines: Lines) -> None:
    def refuse_with_line(packet: bytes) -> tuple[bytes, list[int]]:
        _, fds = lines(packet)
        number = control.decode_request(packet).number
        return control.encode_reply(Outcome.BUSY, number), fds

    with fake_zygote(tmp_path, refuse_with_line):
        with pytest.raises(NodeBusy):
            use(tmp_path, lambda client: client.ask_open(ID))
        assert lines.ends[0].recv(1) == b""


def test_questions_at_once_share_a_connection_and_get_their_own_answers(tmp_path: Path) -> None:
    held: list[control.Request] = []
    connections: list[socket.socket] = []

    def answer_to(request: control.Request) -> bytes:
        text = json.dumps({"number": request.number}).encode()
        return control.encode_reply(Outcome.DONE, request.number, 0, text)

    def in_reverse(packet: bytes) -> tuple[bytes, list[int]]:
        """Keep the first two questions, then answer the newest first."""
        held.append(control.decode_request(packet))
        if len(held) < 3:
            return b"", []
        for later in (held[2], held[1]):
            connections[0].send(answer_to(later))
        return answer_to(held[0]), []

    class Spy(FakeZygote):
        def _answer(self, sock: socket.socket) -> bool:
            connections.append(sock)
            return super()._answer(sock)

    async def three(client: AsyncClient) -> list[object]:
        asked = [asyncio.create_task(client.ask_status()) for _ in range(3)]
        return list(await asyncio.gather(*asked))

    zygote = Spy(tmp_path, in_reverse)
    try:
        answers = use(tmp_path, three)
    finally:
        zygote.close()
    assert answers == [{"number": request.number} for request in held]
    assert zygote.connections == 1


@pytest.mark.parametrize(
    "wrong",
    [hang_up, lambda _: (b"short", []), lambda packet: (bytes([9]) + done(packet)[0][1:], [])],
    ids=["hangs up", "short", "unknown outcome"],
)
def test_a_question_is_asked_again_when_its_connection_breaks(
    tmp_path: Path, lines: Lines, wrong: Answering
) -> None:
    with fake_zygote(tmp_path, at_first(wrong, lines)) as zygote:
        line = use(tmp_path, lambda client: client.ask_create(ID, 1)).line
        line.close()
        assert zygote.connections == 2
        assert [request.op for request in zygote.requests] == [Op.CREATE, Op.CREATE]


def test_all_waiting_questions_are_asked_again_when_the_zygote_hangs_up(tmp_path: Path) -> None:
    async def three(client: AsyncClient) -> None:
        await asyncio.gather(*(client.ask_kill(ID) for _ in range(3)))

    with fake_zygote(tmp_path, at_first(silent, at_first(silent, at_first(hang_up, done)))):
        use(tmp_path, three)


def test_a_zygote_that_comes_later_is_waited_for(tmp_path: Path) -> None:
    async def early(client: AsyncClient) -> None:
        asked = asyncio.create_task(client.ask_kill(ID))
        await asyncio.sleep(0.12)
        assert not asked.done()
        with fake_zygote(tmp_path, done):
            await asked

    use(tmp_path, early)


@pytest.mark.parametrize("answering", [None, silent, hang_up], ids=["nobody", "silent", "hangs up"])
def test_patience_ends_as_zygote_gone(tmp_path: Path, answering: Answering | None) -> None:
    zygote = fake_zygote(tmp_path, answering) if answering else contextlib.nullcontext()
    with zygote, no_descriptor_left():
        began = time.monotonic()
        with pytest.raises(ZygoteGone):
            use(tmp_path, lambda client: client.ask_kill(ID), 0.2)
        assert time.monotonic() - began < 2


def test_an_answer_to_nobody_is_dropped_with_its_line(tmp_path: Path, lines: Lines) -> None:
    def for_another(packet: bytes) -> tuple[bytes, list[int]]:
        _, fds = lines(packet)
        return control.encode_reply(Outcome.DONE, 999_999), fds

    with (
        fake_zygote(tmp_path, for_another),
        pytest.raises(ZygoteGone),
    ):
        use(tmp_path, lambda client: client.ask_open(ID), 0.2)
    assert lines.ends[0].recv(1) == b""


@pytest.mark.parametrize("turns", range(5))
def test_a_line_that_arrives_while_its_asker_is_cancelled_is_closed(
    tmp_path: Path, lines: Lines, turns: int
) -> None:
    """The reply lies in the socket; `turns` of the loop later the asker is cancelled."""

    async def cancelled(client: AsyncClient) -> None:
        asked = asyncio.create_task(client.ask_open(ID))
        await asyncio.sleep(0)
        # The loop stands still meanwhile.
        wait_until(lambda: lines.ends, 5)
        for _ in range(turns):
            await asyncio.sleep(0)
        asked.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            (await asked)[0].close()
        # Whatever is still in the socket is read before the client goes.
        for _ in range(5):
            await asyncio.sleep(0)

    with fake_zygote(tmp_path, lines):
        use(tmp_path, cancelled)
        lines.ends[0].settimeout(5)
        assert lines.ends[0].recv(1) == b""


def test_a_cancelled_question_does_not_disturb_the_next(tmp_path: Path, lines: Lines) -> None:
    async def both(client: AsyncClient) -> None:
        first = asyncio.create_task(client.ask_open(ID))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        line = (await client.ask_open(ID)).line
        line.close()

    with fake_zygote(tmp_path, lines) as zygote:
        use(tmp_path, both)
        assert zygote.connections == 1
        for end in lines.ends:
            assert end.recv(1) == b""


def test_used_databases_are_told_without_waiting_in_packets_that_fit(tmp_path: Path) -> None:
    ids = [os.urandom(16) for _ in range(control.TOUCH_MOST + 5)]

    async def tell(client: AsyncClient) -> None:
        await client.ask_kill(ID)
        client.tell_used(iter(ids))
        client.tell_used([])
        await client.ask_kill(ID)

    with fake_zygote(
        tmp_path, lambda packet: (b"", []) if packet[0] == Op.TOUCH else done(packet)
    ) as zygote:
        use(tmp_path, tell)
        touched = [control.decode_touch(packet) for packet in zygote.packets]
    packets = [found for found in touched if found is not None]
    assert [len(packet) for packet in packets] == [control.TOUCH_MOST, 5]
    assert [instance for packet in packets for instance in packet] == ids


def test_telling_a_zygote_that_is_away_does_nothing(tmp_path: Path) -> None:
    async def tell(client: AsyncClient) -> None:
        client.tell_used([ID])

    use(tmp_path, tell)


def test_telling_a_zygote_that_has_just_gone_does_nothing(tmp_path: Path) -> None:
    async def tell(client: AsyncClient) -> None:
        with fake_zygote(tmp_path, done):
            await client.ask_kill(ID)
        client.tell_used([ID] * 600)

    use(tmp_path, tell)


def test_a_closed_client_fails_what_still_waits_and_leaves_nothing_open(tmp_path: Path) -> None:
    async def close(client: AsyncClient) -> None:
        asked = asyncio.create_task(client.ask_kill(ID))
        await asyncio.sleep(0.05)
        client.close()
        with pytest.raises(ZygoteGone):
            await asked

    with fake_zygote(tmp_path, silent), no_descriptor_left():
        use(tmp_path, close, 0.3)


# --- kept states ---

STATE = b'{"name": "one", "created": 1, "bytes": 4096}'


@pytest.mark.parametrize(
    ("act", "op", "text", "told"),
    [
        ("ask_keep", Op.KEEP, STATE, json.loads(STATE)),
        ("ask_go_back", Op.GO_BACK, STATE, json.loads(STATE)),
        ("ask_drop", Op.DROP, b"", None),
    ],
)
def test_a_state_is_named_and_a_call_under_way_is_left_its_time(
    tmp_path: Path, act: str, op: Op, text: bytes, told: Any
) -> None:
    with fake_zygote(tmp_path, lambda packet: done(packet, text)) as zygote:
        found = use(tmp_path, lambda client: getattr(client, act)(ID, "one", 1500), 2.0)
        assert found == told
        (asked,) = zygote.requests
        assert (asked.op, asked.instance, asked.name, asked.amount) == (op, ID, "one", 1500)
        left_s = asked.until / 1000 - time.monotonic()
        assert 2.0 < left_s < 3.6, "its own patience and the call's time"


def test_states_are_listed(tmp_path: Path) -> None:
    with fake_zygote(tmp_path, lambda packet: done(packet, b"[" + STATE + b"]")):
        assert use(tmp_path, lambda client: client.ask_states(ID)) == [json.loads(STATE)]


@pytest.mark.parametrize("outcome", [*control.REFUSALS, Outcome.BUSY, Outcome.FAILED])
@pytest.mark.parametrize("act", ["ask_keep", "ask_go_back", "ask_drop"])
def test_what_was_not_done_is_an_error(tmp_path: Path, act: str, outcome: Outcome) -> None:
    with (
        fake_zygote(tmp_path, answer_with(outcome)),
        pytest.raises(control.REFUSALS.get(outcome, NodeBusy)),
    ):
        use(tmp_path, lambda client: getattr(client, act)(ID, "one", 10))


def test_the_shelf_has_places_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: Lines
) -> None:
    """Who waits for a cell's end is in nobody's way, however many there are."""
    monkeypatch.setattr("sandbox.client.MOST_AT_THE_SHELF", 3)
    monkeypatch.setattr("sandbox.client.MOST_WAITING", 1)

    def tell(packet: bytes) -> tuple[bytes, list[int]]:
        op = control.decode_request(packet).op
        return silent(packet) if op is Op.KEEP else lines(packet)

    async def act(client: AsyncClient) -> None:
        keeping = [asyncio.create_task(client.ask_keep(ID, "one", 0)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(NodeBusy):
            await client.ask_keep(ID, "one", 0)
        (await client.ask_create(ID, 60)).line.close()
        for one in keeping:
            one.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)

    with fake_zygote(tmp_path, tell):
        use(tmp_path, act)
