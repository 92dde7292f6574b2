"""Cells are forked in a row: as many as can be had, and nothing is left open for the others."""

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox import birth, leash
from sandbox.birth import Newborn
from sandbox.jail import Walls
from sandbox.leash import Order
from sandbox.place import Place
from tests.sandbox.handles import in_child


@pytest.fixture
def fork(folder: Path, walls: Walls) -> Callable[[int], list[Newborn]]:
    return lambda count: birth.fork(count, Place(folder / "data"), walls)


def open_count() -> int:
    return len(os.listdir("/proc/self/fd"))


def ends(born: list[Newborn]) -> list[int]:
    """Tell every newborn to retire, which needs it to be sound, and return the exit statuses."""
    for one in born:
        leash.send_order(one.leash, Order.RETIRE, bytes(16))
    statuses = [os.waitpid(one.pid, 0)[1] for one in born]
    for one in born:
        one.leash.close()
    return statuses


def failing_after(good: int, honest: Callable[..., object]) -> Callable[..., object]:
    calls = iter([*[honest] * good])

    def act(*words: object, **named: object) -> object:
        try:
            return next(calls)(*words, **named)
        except StopIteration:
            raise BlockingIOError("no more") from None

    return act


@pytest.mark.parametrize("count", [1, 2, 8])
def test_as_many_as_are_asked_for(fork: Callable[[int], list[Newborn]], count: int) -> None:
    def act(_: socket.socket) -> str:
        before = open_count()
        born = fork(count)
        kept = open_count() - before
        pids = {one.pid for one in born}
        return f"{len(pids)} {kept} {sum(ends(born))} {open_count() - before}"

    assert in_child(act).word == f"{count} {count} 0 0"


def test_each_is_a_process_of_its_own_that_no_other_holds_on_to(
    fork: Callable[[int], list[Newborn]],
) -> None:
    """The zygote sees a cell's end at once, though others were forked with its socket open."""

    def act(_: socket.socket) -> str:
        first, *others = fork(4)
        for one in others:
            leash.send_order(one.leash, Order.RETIRE, bytes(16))
        for one in others:
            os.waitpid(one.pid, 0)
        os.kill(first.pid, signal.SIGKILL)
        os.waitpid(first.pid, 0)
        heard = [leash.receive_report(one.leash) for one in (first, *others)]
        for one in (first, *others):
            one.leash.close()
        return str(heard)

    assert in_child(act).word == "[None, None, None, None]"


@pytest.mark.parametrize("good", [0, 1, 3])
@pytest.mark.parametrize("what", ["fork", "socketpair"])
def test_fewer_when_no_more_can_be_had_and_an_error_when_none(
    fork: Callable[[int], list[Newborn]], monkeypatch: pytest.MonkeyPatch, good: int, what: str
) -> None:
    def act(_: socket.socket) -> str:
        module = {"fork": os, "socketpair": socket}[what]
        monkeypatch.setattr(module, what, failing_after(good, getattr(module, what)))
        before = open_count()
        try:
            born = fork(4)
        except BlockingIOError as error:
            return f"{error} {open_count() - before}"
        return f"{len(born)} {sum(ends(born))} {open_count() - before}"

    assert in_child(act).word == (f"{good} 0 0" if good else "no more 0")


def test_without_a_ruleset_there_is_none(folder: Path, walls: Walls) -> None:
    def act(_: socket.socket) -> str:
        before = open_count()
        try:
            birth.fork(1, Place(folder), Walls(99, walls.seccomp))
        except OSError as error:
            return f"{error} {open_count() - before}"
        return "born"

    word = in_child(act).word
    assert word.startswith("kernel does not support")
    assert word.endswith(" 0")
