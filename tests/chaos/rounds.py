"""The rounds: one fault after the other, chosen by a seed, and after each a look at everything."""

import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.faults import FAULTS, NEEDS_DISK, NEEDS_GROUPS, WEIGHTS, Scene
from tests.chaos.tenants import Database, Tenant, wrong_rows
from tests.handles import Client, Service, free_port, open_folder, wait_until
from tests.machine import SteppedClock, little_memory, small_disk

TENANTS = 4
TTL_S = 12
#: An expired database is gone so long after its time, the reaper being alive.
_GONE_S = 10
#: A zygote killed while it proves its walls leaves a database that expires so much later.
_PROOF_S = 60
_LOOK_EVERY = 10
_CANARY = "nobody may touch this"
#: What the processes may have grown by at the end: descriptors each, and memory together.
_MORE_DESCRIPTORS = 12
_MORE_BYTES = 48 << 20


@dataclass
class Report:
    """What is printed at the end."""

    seed: int
    rounds: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    left_out: list[str] = field(default_factory=list)
    acknowledged: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    #: How often a database went back to a kept state.
    went_back: int = 0
    breaches: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        return sum("rows lost" in breach for breach in self.breaches)

    def __str__(self) -> str:
        lines = [
            f"seed {self.seed}, rounds {self.rounds}",
            *(f"  {count:5} {name}" for name, count in self.faults.most_common()),
            *(f"  left out: {name}" for name in self.left_out),
            "answers: " + ", ".join(f"{code} {n}" for code, n in self.codes.most_common()),
            *(f"BREACH {breach}" for breach in self.breaches[:20]),
            *(f"LEAK {leak}" for leak in self.leaks),
            f"databases gone back: {self.went_back}",
            f"rows acknowledged: {self.acknowledged}, rows lost: {self.lost},"
            f" breaches: {len(self.breaches)}, leaks: {len(self.leaks)}",
        ]
        return "\n".join(lines)


def run(rounds: int, seconds: float, seed: int) -> Report:
    """Run so many rounds, or as many as fit into the time."""
    with open_folder() as folder, small_disk(folder) as disk:
        return _Chaos(folder, disk, seed).run(rounds, seconds)


class _Chaos:
    def __init__(self, folder: Path, disk: Path | None, seed: int) -> None:
        self._report = Report(seed)
        clock = SteppedClock(folder / "clock")
        data_dir = (disk or folder) / "data"
        data_dir.mkdir(mode=0o755)
        (data_dir.parent / "canary").mkdir()
        (data_dir.parent / "canary" / "file").write_text(_CANARY)
        self._service = Service(
            data_dir,
            port=free_port(),
            ttl_s=TTL_S,
            requests_per_min=0,
            creations_per_min=0,
            max_live_cells=16,
            cell_idle_s=2,
            log_calls="no",
            python_path=clock.folder,
        )
        self._service._log = folder / "chaos.log"
        self._tenants = [Tenant(self._service, number, seed) for number in range(TENANTS)]
        chance = random.Random(seed)
        self._scene = Scene(self._service, self._tenants, chance, disk, clock)
        with little_memory([], 1 << 20) as has_groups:
            missing = (NEEDS_DISK if disk is None else frozenset()) | (
                frozenset() if has_groups else NEEDS_GROUPS
            )
        names = [name for name in FAULTS if name not in missing]
        self._report.left_out = [f"{name} (cannot be done here)" for name in sorted(missing)]
        self._names = names
        self._weights = [WEIGHTS.get(name, 4) for name in names]
        self._looked_at: set[str] = set()

    def run(self, rounds: int, seconds: float) -> Report:
        report, scene = self._report, self._scene
        self._service.start()
        try:
            scene.until_ready()
            before = self._sizes()
            for tenant in self._tenants:
                tenant.start()
            # A fault is done to a service that is in use: each has its connection by then.
            wait_until(lambda: all(one.database for one in self._tenants), 20, "all are at work")
            give_up = time.monotonic() + seconds
            while report.rounds < rounds and time.monotonic() < give_up and not report.breaches:
                self._round()
            self._settle(before)
        except Exception as fault:
            report.breaches.append(f"round {report.rounds}: {fault!r}")
        finally:
            for tenant in self._tenants:
                tenant.end()
            if self._service.process is not None:
                self._service.process.send_signal(signal.SIGCONT)
                self._service.stop()
        if "Traceback" in self._service.log():
            report.breaches.append("a traceback in the log")
        if report.breaches:
            kept = Path("/tmp") / f"walkin-chaos-{report.seed}.log"
            kept.write_text(self._service.log())
            report.breaches.append(f"the log is in {kept}")
        return report

    def _round(self) -> None:
        report = self._report
        (name,) = self._scene.chance.choices(self._names, self._weights)
        report.rounds += 1
        report.faults[name] += 1
        try:
            FAULTS[name](self._scene)
            self._scene.until_ready()
        except Exception as fault:
            raise RuntimeError(f"{name}: {fault!r}") from fault
        self._gather(name)
        if report.rounds % _LOOK_EVERY == 0:
            self._look_at_the_expired()
            self._look_at_the_canary()

    def _gather(self, name: str) -> None:
        for tenant in self._tenants:
            breaches, tenant.breaches = tenant.breaches, []
            self._report.breaches += [
                f"round {self._report.rounds}, {name}: {breach}" for breach in breaches
            ]

    def _look_at_the_expired(self) -> None:
        """What has expired is not there for anybody, and soon not on the disk."""
        now = time.time()
        client = self._service.client()
        for database in self._left():
            if database.instance in self._looked_at or now < database.expires + _GONE_S + 1:
                continue
            self._looked_at.add(database.instance)
            client.token = database.token
            answer = client.sql("SELECT n FROM kept")
            if answer.status != 404:
                self._report.breaches.append(f"expired and there: {answer!r}")
            held = [str(path) for path in self._service.traces() if database.instance in str(path)]
            if held:
                self._report.breaches.append(f"expired and on the disk: {held}")
        client.close()
        self._service._clients.remove(client)

    def _look_at_the_canary(self) -> None:
        if (self._scene.canary / "file").read_text() != _CANARY:
            self._report.breaches.append("the canary was touched")

    def _left(self) -> list[Database]:
        return [database for tenant in self._tenants for database in list(tenant.left)]

    def _settle(self, before: dict[str, int]) -> None:
        """Look at every live database; then wait until all have expired, and at what is left."""
        for tenant in self._tenants:
            tenant.end()
        for tenant in self._tenants:
            tenant.join(30)
            if tenant.is_alive():
                self._report.breaches.append(f"{tenant.name} hangs")
        self._gather("the end")
        for tenant in self._tenants:
            if tenant.database and not tenant.database.is_spoilt:
                self._look_at_the_living(tenant.database)
            self._report.codes += tenant.codes
            self._report.went_back += tenant.went_back
        databases = [*self._left(), *(one.database for one in self._tenants if one.database)]
        self._report.acknowledged = sum(len(database.acknowledged) for database in databases)
        give_up = time.monotonic() + max(TTL_S, _PROOF_S) + _GONE_S + 5
        while (traces := self._service.traces()) and time.monotonic() < give_up:
            time.sleep(0.1)
        self._report.leaks += [f"left on the disk: {path}" for path in traces[:10]]
        roles = {"zygote", "reaper", "front desk", "blank cell"}
        wait_until(
            lambda: {title.removeprefix("walkin: ") for title in self._service.family()} == roles,
            20,
            "cells are given up",
        )
        self._look_at_the_canary()
        after = self._sizes()
        for what, size in after.items():
            most = before[what] + (_MORE_BYTES if what == "bytes" else _MORE_DESCRIPTORS)
            if size > most:
                self._report.leaks.append(f"{what}: {before[what]} at first, {size} at the end")

    def _look_at_the_living(self, database: Database) -> None:
        client = Client(self._service.url, database.token)
        answer = client.sql("SELECT n FROM kept")
        if answer.status == 200:
            self._report.breaches += wrong_rows(database, [row[0] for row in answer.rows])
            sound = client.sql("PRAGMA integrity_check")
            if sound.status == 200 and sound.rows != [["ok"]]:
                self._report.breaches.append(f"not sound: {sound!r}")
        elif time.time() < database.expires - 1:
            self._report.breaches.append(f"not to be read: {answer!r}")
        client.close()

    def _sizes(self) -> dict[str, int]:
        sizes = {"bytes": 0}
        for role in ("zygote", "reaper", "front desk"):
            (pid,) = wait_until(lambda role=role: self._service.pids(role), 10, role)
            sizes[f"descriptors of the {role}"] = len(os.listdir(f"/proc/{pid}/fd"))
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            sizes["bytes"] += pages * os.sysconf("SC_PAGE_SIZE")
        return sizes
