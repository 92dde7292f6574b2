"""What a machine does to a service: a small disk, few descriptors, little memory, a set clock."""

import contextlib
import os
import re
import resource
import subprocess
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.handles import is_running

#: A query that takes all the memory that it may have (sandbox.policy.HEAP_BYTES) and some time.
HUNGRY = """
    WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 400)
    SELECT count(DISTINCT b) FROM (SELECT randomblob(100000) AS b FROM n ORDER BY b)
"""
_GROUPS = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def small_disk(folder: Path, size: str = "64m", inodes: int = 20_000) -> Iterator[Path | None]:
    """A file system of its own that is soon full; None where nothing may be mounted."""
    disk = folder / "disk"
    disk.mkdir()
    options = f"size={size},nr_inodes={inodes},mode=755"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        yield None
        return
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@contextlib.contextmanager
def short_of(pid: int, what: int, room: int) -> Iterator[None]:
    """Leave a process almost nothing of a resource for a while (prlimit(2))."""
    used = 0
    if what == resource.RLIMIT_NOFILE:
        used = max(int(name) for name in os.listdir(f"/proc/{pid}/fd"))
    before = _limit(pid, what, used + room)
    try:
        yield
    finally:
        if is_running(pid):
            _limit(pid, what, before)


_LIMITS = {resource.RLIMIT_NOFILE: "Max open files", resource.RLIMIT_NPROC: "Max processes"}


def _limit(pid: int, what: int, soft: int) -> int:
    """Set a process' soft limit as its own user, who may; return what it was."""
    line = re.search(rf"{_LIMITS[what]}\s+(\w+)\s+(\w+)", Path(f"/proc/{pid}/limits").read_text())
    assert line is not None
    before, hard = (-1 if word == "unlimited" else int(word) for word in line.groups())
    ids = re.findall(r"[UG]id:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(*(int(ids[1]),) * 3)
            os.setresuid(*(int(ids[0]),) * 3)
            resource.prlimit(pid, what, (soft, hard))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return before


@contextlib.contextmanager
def little_memory(pids: Iterable[int], most: int) -> Iterator[bool]:
    """Let these processes, and what they start, have so many bytes more (cgroups(7)).

    Yields whether that can be done here.
    """
    old = _GROUPS / "memory"
    root, limit = (old, "memory.limit_in_bytes") if old.is_dir() else (_GROUPS, "memory.max")
    group = root / f"walkin-test-{uuid.uuid4().hex}"
    try:
        group.mkdir()
        (group / limit).write_text(str(most))
    except OSError:
        with contextlib.suppress(OSError):
            group.rmdir()
        yield False
        return
    own = _own_group(root)
    try:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                (group / "cgroup.procs").write_text(str(pid))
        yield True
    finally:
        while members := (group / "cgroup.procs").read_text().split():
            for pid in members:
                with contextlib.suppress(ProcessLookupError):
                    (own / "cgroup.procs").write_text(pid)
        group.rmdir()


def _own_group(root: Path) -> Path:
    """The memory group of the tests themselves."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(",") or (number == "0" and root == _GROUPS):
            return root / path.lstrip("/")
    return root


class SteppedClock:
    """A machine's clock that can be set, for the processes of one service alone.

    Python imports a module of this name before anything else (site); from then on the service
    reads the time there.
    """

    _MODULE = """
import pathlib, time
_honest, _file, _said = time.time_ns, pathlib.Path(__file__).with_name("seconds"), ["0"]
def _stepped():
    try:
        _said[0] = _file.read_text() or _said[0]
    except OSError:  # in a cell, which can read nothing
        pass
    return _honest() + int(float(_said[0]) * 1e9)
time.time, time.time_ns = lambda: _stepped() / 1e9, _stepped
"""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o755)
        self.folder = folder
        (folder / "sitecustomize.py").write_text(self._MODULE)
        self.step(0)

    def step(self, seconds: float) -> None:
        """Set the clock so many seconds ahead of what it is."""
        fresh = self.folder / "new"
        fresh.write_text(str(seconds))
        fresh.rename(self.folder / "seconds")
