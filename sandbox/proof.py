"""The proof: one real cell raises every wall before any caller's, and the kernel is asked.

Runs in: the zygote, before it takes its first question. What a cell says of itself would prove
nothing, so it is looked at from outside. Landlock has no place in /proc; every cell tries that
door itself (jail.py).
"""

import os
import resource
import select
from pathlib import Path
from typing import Any

from sandbox import control, leash, limits
from sandbox.clock import Clock
from sandbox.errors import NodeBusy, WallError
from sandbox.leash import Report
from sandbox.nursery import Nursery
from sandbox.place import Place

_PATIENCE_S = 10.0

#: Lines of proc_pid_status(5) and what they must say.
_MUST_SAY = {"NoNewPrivs": "1", "Seccomp": "2", "Threads": "1"}
_CAPABILITIES = ("CapPrm", "CapEff", "CapAmb")
#: Lines of proc_pid_limits(5), under the names of getrlimit(2).
LIMITS = {
    "RLIMIT_AS": "Max address space",
    "RLIMIT_FSIZE": "Max file size",
    "RLIMIT_STACK": "Max stack size",
    "RLIMIT_NOFILE": "Max open files",
    "RLIMIT_NPROC": "Max processes",
    "RLIMIT_CPU": "Max cpu time",
    "RLIMIT_CORE": "Max core file size",
    "RLIMIT_MEMLOCK": "Max locked memory",
    "RLIMIT_MSGQUEUE": "Max msgqueue size",
}


def prove_walls(nursery: Nursery, place: Place, clock: Clock) -> dict[str, Any]:
    """Have a cell come up on a database of its own and return what the kernel says of it.

    Raises WallError, with the cell's own words if it is one; NodeBusy if no cell came up within
    _PATIENCE_S for want of something else: memory, disk, processes. OSError likewise.
    """
    instance = os.urandom(control.ID_BYTES)
    # Not due yet, or the reaper might take it away under our hands.
    expires = int(clock.now() + 60)
    nursery.make_database(instance, expires)
    line = nursery.assign(instance)
    if line is None:
        raise NodeBusy("no cell can be forked")
    cell = nursery.live[instance]
    try:
        ready, _, _ = select.select([cell.own], [], [], _PATIENCE_S)
        number, text = (ready and leash.receive_report(cell.own)) or (0, "it said nothing")
        if number != Report.READY:
            # Its word is good: it has met no tenant.
            error = WallError if WallError.__name__ in text else NodeBusy
            raise error(f"the first cell did not come up: {text}")
        return look_at(cell.pid)
    finally:
        nursery.kill(cell)
        nursery.wait_for_end(cell)
        line.close()
        place.move_aside(instance)
        place.delete(instance)
        place.forget(instance, expires)


def look_at(pid: int) -> dict[str, Any]:
    """Return the walls that the kernel shows around a process.

    `seccomp` (a filter), `no_new_privs`, `hidden` (its memory, from others of its user), the user
    id, the number of capabilities, and every rlimit in the units of getrlimit(2). Raises WallError
    for one that does not stand, OSError if the process is gone.
    """
    file = Path(f"/proc/{pid}/status")
    status = {name: text.strip() for name, _, text in _fields(file, ":")}
    for name, wanted in _MUST_SAY.items():
        if status.get(name) != wanted:
            raise WallError(f"a cell's {name} is {status.get(name)}, not {wanted}")
    uids = set(status["Uid"].split())
    if len(uids) != 1:
        raise WallError(f"a cell has several user ids: {status['Uid']}")
    user = int(uids.pop())
    # Where a process is not dumpable, root owns what /proc has of it (proc(5)).
    if user and file.stat().st_uid == user:
        raise WallError("a cell's memory is open to other processes of its user")
    capabilities = sum(int(status[name], 16).bit_count() for name in _CAPABILITIES)
    if capabilities:
        raise WallError(f"a cell has {capabilities} capabilities")
    return {
        "seccomp": True,
        "no_new_privs": True,
        "hidden": True,
        "user": user,
        "capabilities": capabilities,
        "rlimits": _rlimits_of(pid),
    }


def _rlimits_of(pid: int) -> dict[str, int]:
    lines = {title.strip(): text.split() for title, _, text in _fields(f"/proc/{pid}/limits", "  ")}
    found = {}
    for name, title in LIMITS.items():
        most = limits.RLIMITS[getattr(resource, name)]
        soft, hard, *_ = lines[title]
        if soft == "unlimited" or int(soft) > most or hard != soft:
            raise WallError(f"a cell's {name} is {soft} and may be {hard}, not {most}")
        found[name] = int(soft)
    return found


def _fields(file: Path | str, separator: str) -> list[tuple[str, str, str]]:
    return [line.partition(separator) for line in Path(file).read_text().splitlines()]
