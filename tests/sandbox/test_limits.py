"""The plain limits: one descriptor kept, rlimits for good, lower priority."""

import os
import resource
import socket
from collections.abc import Callable

import pytest

from sandbox import kernel, limits
from tests.sandbox.handles import in_child, keep

NAMES = {value: name for name, value in vars(resource).items() if name.startswith("RLIMIT_")}


def open_numbers(most: int = 512) -> list[int]:
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


def kept(prepare: Callable[[socket.socket], socket.socket]) -> str:
    def act(sock: socket.socket) -> str:
        line = keep(limits.keep_only(prepare(sock)))
        ends = line.getsockname() == "" and line.family is socket.AF_UNIX
        return f"{open_numbers()} {line.fileno()} {[is_null(fd) for fd in (0, 1, 2)]} {ends}"

    return in_child(act).word


EXPECTED = "[0, 1, 2, 3] 3 [True, True, True] True"


def test_only_the_line_is_kept_and_the_standard_three_are_on_dev_null() -> None:
    assert kept(lambda sock: sock) == EXPECTED


def test_descriptors_however_high_are_closed() -> None:
    def high(sock: socket.socket) -> socket.socket:
        for fd in (100, 300, 500):
            os.dup2(sock.fileno(), fd)
        return sock

    assert kept(high) == EXPECTED


def test_a_line_that_is_number_3_already_is_kept() -> None:
    def third(sock: socket.socket) -> socket.socket:
        if sock.fileno() == limits.LINE_FD:
            return sock
        os.dup2(sock.fileno(), limits.LINE_FD)
        return keep(socket.socket(fileno=limits.LINE_FD))

    assert kept(third) == EXPECTED


def test_a_process_without_the_standard_three_gets_them() -> None:
    def bare(sock: socket.socket) -> socket.socket:
        for fd in (0, 1, 2):
            os.close(fd)
        return sock

    assert kept(bare) == EXPECTED


def test_the_line_still_works_and_is_not_inherited_by_programs() -> None:
    def act(sock: socket.socket) -> str:
        line = keep(limits.keep_only(sock))
        line.send(b"through")
        return str(line.get_inheritable())

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
