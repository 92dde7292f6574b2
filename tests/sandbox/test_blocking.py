"""Asking the zygote one question at a time: answers, silence, and one that was started anew."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox import control
from sandbox.blocking import BlockingClient
from sandbox.control import Op, Outcome
from sandbox.errors import ZygoteGone
from tests.sandbox.handles import Answering, done, fake_zygote
from tests.sandbox.test_client import ID, answer_with, at_first, hang_up, no_descriptor_left, silent


@pytest.fixture
def blocking(tmp_path: Path) -> Iterator[BlockingClient]:
    client = BlockingClient(tmp_path, 5.0)
    yield client
    client.close()


def test_a_kill_names_its_instance_and_returns_when_it_is_done(
    tmp_path: Path, blocking: BlockingClient
) -> None:
    with fake_zygote(tmp_path, done) as zygote:
        blocking.ask_kill(ID)
        (request,) = zygote.requests
    assert (request.op, request.instance) == (Op.KILL, ID)


def test_what_the_reaper_removed_is_told_without_an_answer(
    tmp_path: Path, blocking: BlockingClient
) -> None:
    with fake_zygote(tmp_path, done) as zygote:
        blocking.tell_reaped(5)
        blocking.tell_reaped(0)
        blocking.ask_kill(ID)
        told = [control.decode_request(packet) for packet in zygote.packets]
        assert [(one.op, one.amount) for one in told] == [
            (Op.REAPED, 5),
            (Op.REAPED, 0),
            (Op.KILL, 0),
        ]


def test_without_a_zygote_what_was_removed_is_not_told(
    tmp_path: Path, blocking: BlockingClient
) -> None:
    with pytest.raises(ZygoteGone):
        blocking.tell_reaped(5)


def test_the_status_is_what_the_zygote_says(tmp_path: Path, blocking: BlockingClient) -> None:
    with fake_zygote(tmp_path, lambda packet: done(packet, b'{"live_cells": 3}')):
        assert blocking.ask_status() == {"live_cells": 3}


def test_questions_share_a_connection_and_have_numbers_of_their_own(
    tmp_path: Path, blocking: BlockingClient
) -> None:
    with fake_zygote(tmp_path, done) as zygote:
        for _ in range(3):
            blocking.ask_kill(ID)
        assert zygote.connections == 1
        assert len({request.number for request in zygote.requests}) == 3


@pytest.mark.parametrize(
    "wrong",
    [
        hang_up,
        lambda _: (b"short", []),
        lambda packet: (bytes([9]) + done(packet)[0][1:], []),
        lambda _: (control.encode_reply(Outcome.DONE, 999_999), []),
        answer_with(Outcome.FAILED),
        answer_with(Outcome.BUSY),
        answer_with(Outcome.MISSING),
    ],
    ids=["hangs up", "short", "unknown outcome", "other number", "failed", "busy", "missing"],
)
def test_any_answer_but_done_is_no_answer_and_the_next_question_gets_a_new_connection(
    tmp_path: Path, blocking: BlockingClient, wrong: Answering
) -> None:
    with fake_zygote(tmp_path, at_first(wrong, done)) as zygote:
        with pytest.raises(ZygoteGone, match="KILL"):
            blocking.ask_kill(ID)
        blocking.ask_kill(ID)
        assert zygote.connections == 2


def test_nobody_there_is_zygote_gone(blocking: BlockingClient) -> None:
    with no_descriptor_left(), pytest.raises(ZygoteGone):
        blocking.ask_kill(ID)


def test_silence_is_zygote_gone_after_the_timeout(tmp_path: Path) -> None:
    client = BlockingClient(tmp_path, 0.1)
    with fake_zygote(tmp_path, silent):
        began = time.monotonic()
        with pytest.raises(ZygoteGone):
            client.ask_kill(ID)
        assert 0.1 <= time.monotonic() - began < 2


def test_a_late_answer_is_not_the_next_questions(tmp_path: Path) -> None:
    late: list[bytes] = []

    def keep(packet: bytes) -> tuple[bytes, list[int]]:
        late.append(packet)
        return b"", []

    client = BlockingClient(tmp_path, 0.1)
    with fake_zygote(tmp_path, at_first(keep, lambda p: done(p, b'{"late": false}'))):
        with pytest.raises(ZygoteGone):
            client.ask_status()
        assert late
        assert client.ask_status() == {"late": False}
    client.close()


def test_a_zygote_that_was_started_anew_is_found_at_the_second_question(
    tmp_path: Path, blocking: BlockingClient
) -> None:
    with fake_zygote(tmp_path, done):
        blocking.ask_kill(ID)
    with fake_zygote(tmp_path, done):
        with pytest.raises(ZygoteGone):
            blocking.ask_kill(ID)
        blocking.ask_kill(ID)


def test_a_closed_blocking_client_leaves_nothing_open(tmp_path: Path) -> None:
    with fake_zygote(tmp_path, done), no_descriptor_left():
        client = BlockingClient(tmp_path, 5)
        client.ask_kill(ID)
        client.close()
        client.close()
