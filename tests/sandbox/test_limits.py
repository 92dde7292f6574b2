"""The plain limits: one descriptor kept, rlimits for good, lower priority."""

import os
import resource
import socket
from collections.abc import Callable

import pytest

from sandbox import kernel, limits
from tests.sandbox.handles import in_child

NAMES = {value: name for name, value in vars(resource).items() if name.startswith("RLIMIT_")}


def open_numbers(most: int = 16_384) -> list[int]:
    """The descriptors that are open, found without opening another."""
    found = []
    for fd in range(most):
        try:
            os.fstat(fd)
        except OSError:
            continue
        found.append(fd)
    return found


def is_null(fd: int) -> bool:
    null = os.stat(os.devnull)
    found = os.fstat(fd)
    return (found.st_rdev, found.st_ino) == (null.st_rdev, null.st_ino)


# --- descriptors ---


def kept(prepare: Callable[[socket.socket], object] = id, *others: int) -> str:
    """What is open after keep_only: `line` and `null` for what they are, else the number."""

    def act(sock: socket.socket) -> str:
        prepare(sock)
        limits.keep_only(sock.fileno(), *others)
        line = sock.fileno()
        return " ".join(
            "line" if fd == line else "null" if is_null(fd) else str(fd) for fd in open_numbers()
        )

    return in_child(act).word


def test_only_the_line_is_kept_and_the_standard_three_are_on_dev_null() -> None:
    assert kept() == "null null null line"


def test_descriptors_however_high_are_closed() -> None:
    def high(sock: socket.socket) -> None:
        for fd in (100, 300, 500):
            os.dup2(sock.fileno(), fd)

    assert kept(high) == "null null null line"


@pytest.mark.parametrize("other", [3, 99, 400])
def test_another_is_kept_below_or_above_the_line(other: int) -> None:
    def around(sock: socket.socket) -> None:
        assert sock.fileno() not in (3, 99, 400)
        for fd in (3, 98, 99, 100, 399, 400, 401):
            os.dup2(sock.fileno(), fd)

    words = kept(around, other).split()
    assert words[:3] == ["null"] * 3
    assert sorted(words[3:]) == sorted(["line", str(other)])


def test_a_process_without_the_standard_three_gets_them() -> None:
    def bare(_: socket.socket) -> None:
        for fd in (0, 1, 2):
            os.close(fd)

    assert kept(bare) == "null null null line"


def test_the_line_still_works_and_is_not_inherited_by_programs() -> None:
    def act(sock: socket.socket) -> str:
        limits.keep_only(sock.fileno())
        sock.send(b"through")
        return str(sock.get_inheritable())

    assert in_child(act).word == "False"


# --- rlimits ---


@pytest.mark.parametrize("number", limits.RLIMITS, ids=NAMES.get)
def test_an_rlimit_is_set_soft_and_hard_alike(number: int) -> None:
    def act(_: socket.socket) -> str:
        __, hard = resource.getrlimit(number)
        limits.lower_rlimits()
        found = resource.getrlimit(number)
        wanted = limits.RLIMITS[number]
        most = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        return f"{found == (most, most)} {found}"

    assert in_child(act).word.startswith("True")


@pytest.mark.parametrize("number", limits.RLIMITS, ids=NAMES.get)
def test_an_rlimit_cannot_be_raised_again(number: int) -> None:
    def act(_: socket.socket) -> str:
        limits.lower_rlimits()
        most, __ = resource.getrlimit(number)
        try:
            resource.setrlimit(number, (most + 1, most + 1))
        except (ValueError, PermissionError):
            return "refused"
        return "raised"

    assert in_child(act).word == "refused"


def test_a_lower_limit_of_the_operators_stays() -> None:
    def act(_: socket.socket) -> str:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        limits.lower_rlimits()
        return str(resource.getrlimit(resource.RLIMIT_FSIZE))

    assert in_child(act).word == "(1000, 1000)"


def test_the_file_limit_leaves_room_for_the_longest_write_ahead_log() -> None:
    frame = 4096 + 24
    assert limits.RLIMITS[resource.RLIMIT_FSIZE] > (999 + 2560) * frame + 32


def test_no_process_no_core_and_no_locked_memory() -> None:
    for number in (resource.RLIMIT_NPROC, resource.RLIMIT_CORE, resource.RLIMIT_MEMLOCK):
        assert limits.RLIMITS[number] == 0


def test_a_cell_asks_to_be_replaced_long_before_the_kernel_ends_it() -> None:
    assert limits.RLIMITS[resource.RLIMIT_CPU] >= limits.CPU_BUDGET_S * 2


# --- priority ---


def test_a_cell_runs_at_lower_priority() -> None:
    def act(_: socket.socket) -> str:
        before = os.nice(0)
        # As in jail.strip: whoever changed its user must be made dumpable for it.
        kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
        limits.step_back()
        return str(os.nice(0) - before)

    assert in_child(act).word == str(limits.NICER)
    assert limits.NICER > 0
