"""What code in a cell's place would try, one act each: natively, by system call.

Runs in: jailed processes of the tests, where nothing more can be imported. An act gets the scene,
and returns, raises OSError, or does not live to tell.
"""

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import resource
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyseccomp

from sandbox import limits

_libc = ctypes.CDLL(None, use_errno=True)
_ARCHITECTURE = pyseccomp.system_arch()

DONE = "done"
DENIED = "EACCES"
#: The process is gone: seccomp's word for a call that is not on the list.
KILLED = "SIGSYS"

RW = os.O_RDWR
NEW = os.O_CREAT | os.O_RDWR


@dataclass
class Scene:
    """What there is to be reached. Paths are text, so that it fits a call's arguments."""

    #: The cell's own folder and files.
    own: str
    file: str
    wal: str
    #: Another database's folder and file, and a link beside it that leads out.
    other: str
    other_file: str
    link: str
    #: A folder that anyone may write to.
    free: str
    #: The token keys, here readable by the cells' user: only the jail keeps them.
    keys: str
    #: The zygote's control socket and three listeners of the test's.
    control: str
    named: str
    abstract: str
    port: int
    #: A sibling cell and the parent of both.
    sibling: int
    parent: int


Act = Callable[[Scene], object]


def outcome(act: Act, scene: Scene) -> str:
    """Do it and return how it ended: `done`, or an errno's name."""
    try:
        act(scene)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, repr(error))
    except MemoryError:
        return "ENOMEM"
    return DONE


def number_of(name: str) -> int:
    """Return a system call's number on this machine, negative if it has none."""
    return int(pyseccomp.resolve_syscall(_ARCHITECTURE, name))


def call(result: int) -> None:
    """Raise what a C function reports by -1."""
    if result == -1:
        raise OSError(ctypes.get_errno(), "")


def by_number(number: int, *args: int) -> None:
    """Make a system call."""
    call(_libc.syscall(ctypes.c_long(number), *(ctypes.c_long(arg) for arg in args)))


def raw(name: str, *args: int) -> Act:
    """Return the act of making a system call by its name."""
    number = number_of(name)
    return lambda _: by_number(number, *args)


def opened(path: str, flags: int = os.O_RDONLY) -> None:
    os.close(os.open(path, flags))


def accessed(path: str) -> None:
    if not os.access(path, os.R_OK):
        raise PermissionError(errno.EACCES, "")


def connected(family: int, kind: int, address: Any) -> None:
    with socket.socket(family, kind) as sock:
        sock.connect(address)


def bound(family: int, kind: int, address: Any) -> None:
    with socket.socket(family, kind) as sock:
        sock.bind(address)


def sent_by_udp(scene: Scene) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"out", ("127.0.0.1", scene.port))


def paired() -> None:
    for sock in socket.socketpair():
        sock.close()


def forked() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def mapped(protection: int, size: int = mmap.PAGESIZE) -> None:
    _libc.mmap.restype = ctypes.c_void_p
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    address = _libc.mmap(None, ctypes.c_size_t(size), protection, flags, -1, 0)
    if address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap")


def protected(protection: int) -> None:
    _libc.mmap.restype = ctypes.c_void_p
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    address = _libc.mmap(None, mmap.PAGESIZE, 3, flags, -1, 0)
    call(_libc.mprotect(ctypes.c_void_p(address), mmap.PAGESIZE, protection))


def grown(path: str) -> None:
    """Write one byte below the file size limit, which is allowed, and one at it."""
    most = limits.RLIMITS[resource.RLIMIT_FSIZE]
    fd = os.open(path, os.O_RDWR)
    try:
        os.pwrite(fd, b"x", most - 1)
        os.pwrite(fd, b"x", most)
    finally:
        os.ftruncate(fd, 4096)
        os.close(fd)


def leased(path: str, kind: int) -> None:
    """Take a lease: who opens the file next stands still until it is given up, or 45 s."""
    controlled(path, fcntl.F_SETLEASE, kind)


def controlled(path: str, command: int, value: int) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.fcntl(fd, command, value)
    finally:
        os.close(fd)


def waited_for(path: str) -> None:
    """Lock a file, for as long as that takes."""
    fd = os.open(path, RW)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX)
    finally:
        os.close(fd)


def opened_many(path: str) -> None:
    """Open descriptors until there are no more, and a few more than the limit."""
    held = []
    try:
        for _ in range(limits.RLIMITS[resource.RLIMIT_NOFILE] + 8):
            held.append(os.open(path, os.O_RDONLY))  # noqa: PERF401 - closed if it fails
    finally:
        for fd in held:
            with contextlib.suppress(OSError):
                os.close(fd)


#: Mapped before any wall is raised, for the one act that needs code of its own: getpid by the
#: 32-bit gate (mov eax, 20; int 0x80; ret).
_THIRTY_TWO_BITS = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | 4)
_THIRTY_TWO_BITS.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")


def called_with_32_bits() -> None:
    address = ctypes.addressof(ctypes.c_char.from_buffer(_THIRTY_TWO_BITS))
    ctypes.CFUNCTYPE(ctypes.c_int)(address)()


#: The act; how it ends behind all walls; behind Landlock without seccomp (None: not its business).
ACTS: dict[str, tuple[Act, str, str | None]] = {
    # other files
    "read a system file": (lambda _: opened("/etc/passwd"), DENIED, DENIED),
    "read another database": (lambda s: opened(s.other_file), DENIED, DENIED),
    "write another database": (lambda s: opened(s.other_file, RW), DENIED, DENIED),
    "list another's folder": (lambda s: os.listdir(s.other), DENIED, DENIED),
    "read the token keys": (lambda s: opened(s.keys), DENIED, DENIED),
    "follow a link": (lambda s: opened(s.link), DENIED, DENIED),
    "reach out by ..": (
        lambda s: opened(f"{s.own}/{os.path.relpath(s.other_file, s.own)}", RW),
        DENIED,
        DENIED,
    ),
    "read its own maps": (lambda _: opened("/proc/self/maps"), DENIED, DENIED),
    "read its environment": (lambda _: opened("/proc/self/environ"), DENIED, DENIED),
    "read its own memory": (lambda _: opened("/proc/self/mem"), DENIED, DENIED),
    "write its own memory": (lambda _: opened("/proc/self/mem", RW), DENIED, DENIED),
    "read init's environment": (lambda _: opened("/proc/1/environ"), DENIED, DENIED),
    "read its parent's memory": (lambda s: opened(f"/proc/{s.parent}/mem"), DENIED, DENIED),
    "read its sibling's memory": (lambda s: opened(f"/proc/{s.sibling}/mem"), DENIED, DENIED),
    "list its sibling's files": (lambda s: os.listdir(f"/proc/{s.sibling}/fd"), DENIED, DENIED),
    "list processes": (lambda _: os.listdir("/proc"), DENIED, DENIED),
    "open a device": (lambda _: opened("/dev/null", RW), DENIED, DENIED),
    "open a kernel setting": (lambda _: opened("/proc/sys/kernel/core_pattern"), DENIED, DENIED),
    "list its own folder": (lambda s: os.listdir(s.own), DENIED, DENIED),
    "list the other folders": (lambda s: os.listdir(Path(s.own).parent), DENIED, DENIED),
    # its own folder
    "make a file": (lambda s: opened(f"{s.own}/new", NEW), DENIED, DENIED),
    "make a file elsewhere": (lambda s: opened(f"{s.free}/new", NEW), DENIED, DENIED),
    # Landlock has no right for it: there is no name to make.
    "make a nameless file": (lambda s: opened(s.own, os.O_TMPFILE | RW), KILLED, None),
    "remove a file": (lambda s: os.unlink(s.wal), DENIED, DENIED),
    "rename a file": (lambda s: os.rename(s.wal, f"{s.own}/new"), KILLED, DENIED),
    "replace a file": (lambda s: os.rename(s.wal, s.file), KILLED, DENIED),
    "leave by rename": (lambda s: os.rename(s.wal, f"{s.free}/new"), KILLED, DENIED),
    "link a file": (lambda s: os.link(s.file, f"{s.own}/new"), KILLED, DENIED),
    "leave by link": (lambda s: os.link(s.file, f"{s.free}/new"), KILLED, DENIED),
    "link another's file": (lambda s: os.link(s.other_file, f"{s.own}/new"), KILLED, DENIED),
    "leave by symbolic link": (lambda s: os.symlink("/etc/passwd", f"{s.own}/new"), KILLED, DENIED),
    "make a folder": (lambda s: os.mkdir(f"{s.own}/new"), KILLED, DENIED),
    "remove a folder": (lambda s: os.rmdir(f"{s.free}/sub"), KILLED, None),
    "make a pipe file": (lambda s: os.mkfifo(f"{s.own}/new"), KILLED, DENIED),
    "make a device file": (lambda s: os.mknod(f"{s.own}/new", 0o20600, 0x103), KILLED, None),
    "truncate another's file": (lambda s: os.truncate(s.other_file, 0), KILLED, DENIED),
    "change a mode": (lambda s: os.chmod(s.file, 0o777), KILLED, None),
    "change an owner": (lambda s: os.chown(s.file, os.geteuid(), -1), KILLED, None),
    "change a time": (lambda s: os.utime(s.file), KILLED, None),
    "change folders": (lambda s: os.chdir(s.own), KILLED, None),
    "set an attribute": (lambda s: os.setxattr(s.file, "user.a", b"1"), KILLED, None),
    "read a link": (lambda s: os.readlink(s.link), DENIED, None),
    "test for access": (lambda s: accessed(s.file), DENIED, None),
    "mount": (raw("mount", 0, 0, 0, 0, 0), KILLED, None),
    "mount in the new way": (raw("fsopen", 0, 0), KILLED, None),
    "move its root": (raw("pivot_root", 0, 0), KILLED, None),
    "change its root": (lambda s: os.chroot(s.own), KILLED, None),
    "enter a namespace of its own": (raw("unshare", 0x10000000), KILLED, None),
    "enter another's namespace": (raw("setns", 0, 0), KILLED, None),
    # the network
    "connect by TCP": (
        lambda s: connected(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", s.port)),
        KILLED,
        DENIED,
    ),
    "listen by TCP": (
        lambda _: bound(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
        KILLED,
        DENIED,
    ),
    "send by UDP": (sent_by_udp, KILLED, None),
    "ask the kernel by netlink": (raw("socket", 16, 3, 0), KILLED, None),
    "read packets": (raw("socket", 17, 3, 0), KILLED, None),
    "connect to an abstract socket": (
        lambda s: connected(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + s.abstract),
        KILLED,
        "EPERM",
    ),
    "connect to a named socket": (
        lambda s: connected(socket.AF_UNIX, socket.SOCK_STREAM, s.named),
        KILLED,
        None,
    ),
    "connect to the zygote": (
        lambda s: connected(socket.AF_UNIX, socket.SOCK_SEQPACKET, s.control),
        KILLED,
        None,
    ),
    "make a pair of sockets": (lambda _: paired(), KILLED, None),
    "make a pipe": (lambda _: os.pipe(), KILLED, None),
    # processes
    "fork": (lambda _: forked(), KILLED, None),
    "make a thread or process": (raw("clone3", 0, 0), KILLED, None),
    "run a program": (lambda _: os.execv("/bin/true", ["true"]), KILLED, DENIED),
    "kill its sibling": (lambda s: os.kill(s.sibling, signal.SIGTERM), KILLED, "EPERM"),
    "kill its parent": (lambda s: os.kill(s.parent, signal.SIGTERM), KILLED, "EPERM"),
    "look for its sibling": (lambda s: os.kill(s.sibling, 0), KILLED, "EPERM"),
    "trace its sibling": (lambda s: call(_libc.ptrace(16, s.sibling, 0, 0)), KILLED, "EPERM"),
    "be traced": (lambda _: call(_libc.ptrace(0, 0, 0, 0)), KILLED, None),
    "read its sibling by system call": (
        lambda s: by_number(number_of("process_vm_readv"), s.sibling, 0, 0, 0, 0, 0),
        KILLED,
        None,
    ),
    "take its sibling's descriptors": (raw("pidfd_getfd", 0, 0, 0), KILLED, None),
    "hold its parent by descriptor": (lambda s: os.close(os.pidfd_open(s.parent)), KILLED, None),
    "wait for others": (lambda _: os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG), KILLED, None),
    "change priority": (lambda _: os.nice(0), KILLED, None),
    "raise a limit": (
        lambda _: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30)),
        KILLED,
        None,
    ),
    "read its sibling's limits": (lambda s: resource.prlimit(s.sibling, 9), KILLED, None),
    "become traceable": (raw("prctl", 4, 1, 0, 0, 0), KILLED, None),
    "become another user": (lambda _: os.setuid(os.geteuid()), KILLED, None),
    # what others would wait for, or be told
    "take a lease on its file": (lambda s: leased(s.file, fcntl.F_WRLCK), KILLED, None),
    "take a lease for reading": (lambda s: leased(s.file, fcntl.F_RDLCK), KILLED, None),
    "have signals sent for news": (lambda s: controlled(s.file, fcntl.F_SETSIG, 9), KILLED, None),
    "have others told of news": (lambda s: controlled(s.file, fcntl.F_SETOWN, 1), KILLED, None),
    "wait for a lock": (lambda s: waited_for(s.file), KILLED, None),
    # memory
    "map memory that runs": (lambda _: mapped(7), KILLED, None),
    "make memory run": (lambda _: protected(5), KILLED, None),
    "make all memory run": (raw("personality", 0x0400000), KILLED, None),
    "map more than its share": (lambda _: mapped(3, 600 << 20), "ENOMEM", "ENOMEM"),
    "lock memory": (raw("mlockall", 3), KILLED, None),
    "share memory": (raw("shmget", 0, 0, 0), KILLED, None),
    "make a file of memory": (raw("memfd_create", 0, 0), KILLED, None),
    # limits
    "grow its file over the limit": (lambda s: grown(s.file), "EFBIG", "EFBIG"),
    "grow its log over the limit": (lambda s: grown(s.wal), "EFBIG", "EFBIG"),
    "open descriptors without end": (lambda s: opened_many(s.file), "EMFILE", "EMFILE"),
    # the kernel's larger rooms
    "set up io_uring": (raw("io_uring_setup", 1, 0), KILLED, None),
    "load a BPF program": (raw("bpf", 0, 0, 0), KILLED, None),
    "handle page faults": (raw("userfaultfd", 0), KILLED, None),
    "watch performance": (raw("perf_event_open", 0, 0, 0, 0, 0), KILLED, None),
    "use a key ring": (raw("keyctl", 0, 0, 0, 0, 0), KILLED, None),
    "add a key": (raw("add_key", 0, 0, 0, 0, 0), KILLED, None),
    "watch files": (raw("inotify_init1", 0), KILLED, None),
    "queue messages": (raw("msgget", 1, 0), KILLED, None),
    "change the filter": (raw("seccomp", 1, 0, 0), KILLED, None),
    "change its Landlock rules": (raw("landlock_create_ruleset", 0, 0, 0), KILLED, None),
    "call by the 32-bit gate": (lambda _: called_with_32_bits(), KILLED, None),
    "call by the x32 numbers": (lambda _: by_number(0x40000000 | 39), KILLED, None),
    # devices
    "control a device": (lambda _: fcntl.ioctl(0, 0x541B, b"\0" * 8), DENIED, None),
}  # fmt: skip
#: These fail without a wall too, for another reason: the user's rights, or what is there.
NOT_FREE = frozenset(
    {
        "remove a folder",
        "make a device file",
        "set an attribute",
        "wait for others",
        "control a device",
        "read init's environment",
        "read its parent's memory",
        "read its sibling's memory",
        "list its sibling's files",
        "trace its sibling",
        "mount",
        "mount in the new way",
        "move its root",
        "change its root",
        "enter a namespace of its own",
        "enter another's namespace",
        "ask the kernel by netlink",
        "read packets",
        "make a thread or process",
        "take its sibling's descriptors",
        "share memory",
        "queue messages",
        "make a file of memory",
        "lock memory",
        "set up io_uring",
        "load a BPF program",
        "handle page faults",
        "watch performance",
        "use a key ring",
        "add a key",
        "change the filter",
        "change its Landlock rules",
        "call by the 32-bit gate",
        "call by the x32 numbers",
    }
)
