"""The walls that are plain limits: descriptors, rlimits, priority, who goes first.

Runs in: cells, before the jail. Standard library only.
"""

import os
import resource

#: What a cell may use at most (getrlimit(2)), soft and hard alike.
RLIMITS = {
    resource.RLIMIT_AS: 512 << 20,
    # The page cap is 10 MiB. A WAL may reach 14.7 MiB: 999 frames left over plus a rewrite of
    # all 2,560 pages at 4,120 bytes each, so never below 15.
    resource.RLIMIT_FSIZE: 16 << 20,
    # Deep queries recurse: 16,000 selects in one another, built from views, take 20 MiB and then
    # end at the heap's limit. With the usual 8 MiB they would end the cell.
    resource.RLIMIT_STACK: 64 << 20,
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

#: The most there is: when the machine is out of memory, a cell is what the kernel ends.
FIRST_TO_GO = 1000


def keep_only(*kept: int) -> None:
    """Close every descriptor but `kept` and the standard three, which become /dev/null.

    Raises OSError.
    """
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    first = 3
    for fd in sorted(kept):
        os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))


def lower_rlimits() -> None:
    """Set RLIMITS. Raises OSError or ValueError."""
    for name, value in RLIMITS.items():
        _, hard = resource.getrlimit(name)
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (most, most))


def step_back() -> None:
    """Come after the front desk for the processor (nice(2)), and before it when memory runs out.

    The second is written to /proc/self/oom_score_adj (proc_pid_oom_score_adj(5)); a process that
    is not dumpable could not. Raises OSError.
    """
    os.nice(NICER)
    # Without pathlib's and io's layers: after a fork each page that they touch is copied.
    fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
    os.write(fd, b"%d" % FIRST_TO_GO)
    os.close(fd)
