"""The system calls behind the walls, in the kernel's words. No policy.

Runs in: zygote and cells. The only module with ctypes and with the Landlock and libseccomp
bindings. Success is judged by return values, never by a left-over errno.
"""

import ctypes
import os
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path

import landlockpy
import pyseccomp
from landlockpy.flags import LATEST_ABI

# <linux/prctl.h>
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NO_NEW_PRIVS = 38
# <fcntl.h>, <linux/fs.h>
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
# <linux/seccomp.h>, seccomp(2)
_SECCOMP_SET_MODE_FILTER = 1
_SYSCALL_SECCOMP = {"x86_64": 317, "aarch64": 277}
_BPF_INSTRUCTION_BYTES = 8
# <asm-generic/mman-common.h>, <asm-generic/fcntl.h>
PROT_EXEC = 0x4
O_TMPFILE_BIT = 0o20000000

_libc = ctypes.CDLL(None, use_errno=True)
#: Looked up at the start: a library that lacks it is not found out in the middle of a call.
_renameat2 = _libc.renameat2


class _FilterProgram(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def prctl(option: int, value: int) -> None:
    """prctl(2). Raises OSError."""
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


def exchange(one: Path, other: Path) -> None:
    """Have each of two files or folders be where the other is, at once: renameat2(2).

    Raises OSError, with EINVAL for a file system that cannot (NFS cannot).
    """
    paths = os.fsencode(one), os.fsencode(other)
    if _renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one), None, str(other))


def die_with_parent(parent: int) -> None:
    """Be killed when the parent ends (PR_SET_PDEATHSIG), also if it has ended already."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def landlock_abi() -> int:
    """Return the newest Landlock ABI that kernel and binding both know, 0 where there is none."""
    return min(landlockpy.abi_version(), LATEST_ABI)


def landlock_ruleset(abi: int) -> landlockpy.Ruleset:
    """Return a ruleset, an open descriptor, that denies everything which that ABI number handles.

    That is all file rights, TCP bind and connect, signals and abstract sockets. Raises
    landlockpy.LandlockError; never handles less.
    """
    return landlockpy.Ruleset(
        handled_fs=landlockpy.fs_for_abi(abi),
        handled_net=landlockpy.net_for_abi(abi),
        scoped=landlockpy.scope_for_abi(abi),
        best_effort=False,
    )


def landlock(ruleset: landlockpy.Ruleset, folder: Path, rights: landlockpy.AccessFS) -> None:
    """Restrict this thread for good to `rights` below `folder`, and close the ruleset.

    Raises landlockpy.LandlockError or OSError; never enforces less.
    """
    with ruleset:
        if ruleset.allow_path(folder, rights) != rights:
            raise OSError(f"Landlock would not grant {rights}")
        ruleset.restrict()


def build_filter(
    allowed: Iterable[str],
    refused: Iterable[str],
    without: Mapping[str, tuple[int, int]],
    only: Mapping[str, tuple[int, Iterable[int]]],
) -> bytes:
    """Return a seccomp program for this machine: `allowed` pass, `refused` fail with EACCES.

    `without` maps a call to an argument's index and bits: it passes if none of them is set; `only`
    to an argument's index and the values that it may have.
    Anything else, and any call of another architecture, kills the process. Names this machine
    lacks are left out.
    """
    rules = pyseccomp.SyscallFilter(defaction=pyseccomp.KILL_PROCESS)
    # A tree instead of a list (seccomp_attr_set(3)): the kernel runs the program once for every
    # system call there is when it is loaded, which is a third of what that costs.
    rules.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, 2)
    for action, names in ((pyseccomp.ALLOW, allowed), (pyseccomp.ERRNO(13), refused)):
        for name in filter(_known, names):
            rules.add_rule(action, name)
    for name in filter(_known, without):
        index, bits = without[name]
        rules.add_rule(pyseccomp.ALLOW, name, pyseccomp.Arg(index, pyseccomp.MASKED_EQ, bits, 0))
    for name in filter(_known, only):
        index, values = only[name]
        for value in values:
            rules.add_rule(pyseccomp.ALLOW, name, pyseccomp.Arg(index, pyseccomp.EQ, value))
    with os.fdopen(os.memfd_create("seccomp"), "w+b") as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()


def _known(name: str) -> bool:
    return int(pyseccomp.resolve_syscall(pyseccomp.system_arch(), name)) >= 0


def seccomp(program: bytes) -> None:
    """Load a seccomp program into this process for good. Raises OSError."""
    number = _SYSCALL_SECCOMP[os.uname().machine]
    count = len(program) // _BPF_INSTRUCTION_BYTES
    argument = _FilterProgram(count, program)
    if _libc.syscall(number, _SECCOMP_SET_MODE_FILTER, 0, ctypes.byref(argument)) != 0:
        raise OSError(ctypes.get_errno(), "seccomp(SECCOMP_SET_MODE_FILTER)")
