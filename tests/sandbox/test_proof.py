"""The proof: a jailed process is seen as one, and one with a wall missing is not taken for it."""

import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandbox import kernel, limits, proof
from sandbox.errors import WallError
from sandbox.jail import Walls
from tests.sandbox.handles import CELL_USER, Child, confined


@pytest.fixture
def waiting(own: Path, start_child: Callable[..., Child]) -> Callable[..., int]:
    """Start a process that does something to its walls and waits; return its pid."""

    def start(act: Callable[[Any], Any]) -> int:
        def inside(sock: Any) -> None:
            mine = act(sock) or sock
            mine.send(b"here")
            mine.recv(1)

        child = start_child(inside)
        assert child.hear() == "here"
        return int(child.pid)

    return start


def test_the_walls_of_a_cell_are_seen_from_outside(
    own: Path, walls: Walls, waiting: Callable[..., int]
) -> None:
    parent = os.getpid()
    seen = proof.look_at(waiting(lambda sock: confined(sock, own, walls, parent)))
    assert (seen["seccomp"], seen["no_new_privs"], seen["hidden"]) == (True, True, True)
    assert seen["capabilities"] == 0
    assert seen["user"] == CELL_USER.uid
    assert seen["rlimits"]["RLIMIT_FSIZE"] == limits.RLIMITS[resource.RLIMIT_FSIZE]
    assert len(seen["rlimits"]) == len(limits.RLIMITS)


def without_any_wall(sock: Any) -> None:
    limits.lower_rlimits()


def without_seccomp(sock: Any) -> None:
    limits.lower_rlimits()
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)


@pytest.mark.parametrize(
    ("act", "words"),
    [(without_any_wall, "NoNewPrivs is 0"), (without_seccomp, "Seccomp is 0")],
)
def test_a_missing_wall_is_named(waiting: Callable[..., int], act: Any, words: str) -> None:
    with pytest.raises(WallError, match=words):
        proof.look_at(waiting(act))


def test_a_missing_limit_is_named(
    own: Path, walls: Walls, waiting: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = os.getpid()

    def forgetful(sock: Any) -> Any:
        del limits.RLIMITS[resource.RLIMIT_FSIZE]
        return confined(sock, own, walls, parent)

    with pytest.raises(WallError, match="RLIMIT_FSIZE"):
        proof.look_at(waiting(forgetful))


def test_memory_that_is_open_to_others_is_named(
    own: Path, walls: Walls, waiting: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = os.getpid()
    honest = kernel.prctl

    def open_hearted(sock: Any) -> Any:
        monkeypatch.setattr(kernel, "PR_SET_DUMPABLE", 8)  # PR_SET_KEEPCAPS, which changes nothing
        honest(4, 1)
        return confined(sock, own, walls, parent)

    with pytest.raises(WallError, match="memory is open"):
        proof.look_at(waiting(open_hearted))


def test_a_process_that_is_gone_is_an_error() -> None:
    with pytest.raises(OSError, match="No such"):
        proof.look_at(2**22 + 1)
