"""The door: what a cell keeps, and the ordered list of walls. Every step is fatal.

Runs in: zygote (`prepare`), cells (`strip`, `enter`). All the policy of the kernel's walls is here;
the calls themselves are in kernel.py, the plain limits in limits.py.

What the required Landlock ABI denies, and from which ABI on (landlock(7)): file access (1), links
and renames between folders (2), truncation (3), TCP (4), device ioctls (5), signals and abstract
Unix sockets beyond the jail (6). What it leaves open at that ABI, and seccomp closes: UDP and raw
sockets, named Unix sockets, stat, chmod, chdir, extended attributes, fork.
"""

import fcntl
import os
import socket
from pathlib import Path
from typing import NamedTuple

from landlockpy import AccessFS, Ruleset

from sandbox import kernel, limits
from sandbox.errors import WallError

#: The least that will do: Linux 6.12. A newer kernel's further denials are used too.
LEAST_LANDLOCK_ABI = 6

#: The files exist already (place.FILES): no right to make, remove, rename or list any.
RIGHTS = AccessFS.READ_FILE | AccessFS.WRITE_FILE | AccessFS.TRUNCATE

_ALLOWED = """
    read write pread64 pwrite64 lseek close fsync fdatasync ftruncate fstat
    newfstatat fstatat64 stat lstat statx getcwd
    recvfrom recvmsg sendto sendmsg getsockname getpeername poll ppoll
    brk munmap mremap madvise
    futex rt_sigreturn rt_sigaction rt_sigprocmask restart_syscall setitimer
    clock_gettime gettimeofday clock_nanosleep nanosleep getrandom
    getpid geteuid getrusage exit exit_group
""".split()
_REFUSED = "access faccessat faccessat2 unlink unlinkat readlink readlinkat ioctl".split()
#: No code that was not there at the fork, and no file without a name (Landlock lets it pass).
_WITHOUT = {
    "mmap": (2, kernel.PROT_EXEC),
    "mprotect": (2, kernel.PROT_EXEC),
    "open": (1, kernel.O_TMPFILE_BIT),
    "openat": (2, kernel.O_TMPFILE_BIT),
}
#: What SQLite does with its files (locks, and closing them on exec). No lease above all, fcntl(2):
#: whoever opened the file next, the zygote, would stand still until it was given up.
_ONLY = {"fcntl": (1, (fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL, fcntl.F_GETLK, fcntl.F_SETLK))}


class Walls(NamedTuple):
    """What is prepared once in the zygote and used by every cell."""

    landlock_abi: int
    seccomp: bytes

    def ruleset(self) -> Ruleset:
        """Return Landlock's ruleset for one cell, which grants nothing yet. Raises LandlockError.

        Made before the fork, it costs a tenth of what it costs after: pages that are written then
        are copied first.
        """
        return kernel.landlock_ruleset(self.landlock_abi)


def prepare() -> Walls:
    """Check the kernel and build the filter. Raises WallError if a wall cannot stand here."""
    abi = kernel.landlock_abi()
    if abi < LEAST_LANDLOCK_ABI:
        found = f"has ABI {abi}" if abi else "does not have it, or it is not in the boot list lsm="
        raise WallError(
            f"Landlock ABI {LEAST_LANDLOCK_ABI} (Linux 6.12) is required and this kernel {found}; "
            "walkin does not run SQL without it"
        )
    try:
        walls = Walls(abi, kernel.build_filter(_ALLOWED, _REFUSED, _WITHOUT, _ONLY))
    except (OSError, RuntimeError) as cause:
        raise WallError(f"the seccomp filter cannot be built: {cause}") from cause
    try:
        walls.ruleset().close()
    except OSError as cause:
        raise WallError(f"Landlock: {cause}") from cause
    return walls


def strip(own: socket.socket, zygote: int, ruleset: Ruleset) -> None:
    """Give up what a fork inherits: descriptors, session, memory access, priority, limits."""
    limits.keep_only(own.fileno(), ruleset.fileno())
    os.setsid()
    kernel.die_with_parent(zygote)
    # A zygote that changed its user is not dumpable, and so neither is its child: for a moment it
    # must be, to say of itself that it comes last.
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
    limits.step_back()
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    limits.lower_rlimits()


def enter(folder: Path, walls: Walls, ruleset: Ruleset) -> None:
    """Confine this process to `folder` for good. Raises WallError naming the step that failed."""
    step = "no_new_privs"
    try:
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        step = "Landlock"
        kernel.landlock(ruleset, folder, RIGHTS)
        step = "seccomp"
        kernel.seccomp(walls.seccomp)
    except OSError as cause:
        raise WallError(f"{step}: {cause}") from cause
    _try_the_door(folder)


def _try_the_door(folder: Path) -> None:
    """Raise WallError unless the two walls just raised hold: the kernel may say yes and do less.

    Without Landlock the owner of a folder may list the one above it; without seccomp access(2)
    finds what is there.
    """
    try:
        os.close(os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY))
    except PermissionError:
        if not os.access(folder, os.F_OK):
            return
        raise WallError("seccomp: a call that it refuses was carried out") from None
    raise WallError("Landlock: a folder outside the jail could be opened")
