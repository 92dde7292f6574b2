"""The walls that are plain limits: descriptors, rlimits, priority.

Runs in: cells, before the jail. Standard library only.
"""

import os
import resource
import socket

#: What a cell may use at most (getrlimit(2)), soft and hard alike.
RLIMITS = {
    resource.RLIMIT_AS: 512 << 20,
    # The page cap is 10 MiB. A WAL may reach 14.7 MiB: 999 frames left over plus a rewrite of
    # all 2,560 pages at 4,120 bytes each, so never below 15.
    resource.RLIMIT_FSIZE: 16 << 20,
    # One for each front desk (at most 64), and a few.
    resource.RLIMIT_NOFILE: 128,
    resource.RLIMIT_NPROC: 0,
    resource.RLIMIT_CPU: 120,
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_MEMLOCK: 0,
    resource.RLIMIT_MSGQUEUE: 0,
}

#: A cell asks to be replaced after this many seconds of processor time, long before RLIMIT_CPU
#: would end it in the middle of a call.
CPU_BUDGET_S = 60

#: Added to the nice value: the front desk comes first.
NICER = 5

LINE_FD = 3


def keep_only(line: socket.socket) -> socket.socket:
    """Close every descriptor but the line to the zygote, which becomes number 3."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    if line.fileno() != LINE_FD:
        os.dup2(line.fileno(), LINE_FD, inheritable=False)
    os.closerange(LINE_FD + 1, os.sysconf("SC_OPEN_MAX"))
    return socket.socket(line.family, line.type, line.proto, fileno=LINE_FD)


def lower_rlimits() -> None:
    """Set RLIMITS. Raises OSError or ValueError."""
    for name, value in RLIMITS.items():
        _, hard = resource.getrlimit(name)
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (most, most))


def step_back() -> None:
    """Run at a lower priority than the front desk (nice(2))."""
    os.nice(NICER)
