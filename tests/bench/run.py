"""One run: how long and how often is measured, who takes part, and what was found."""

import contextlib
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.load import Figures, once
from tests.bench.packages import AbsentError
from tests.bench.peers import Peer


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    rounds: int
    seconds: float
    #: Databases that lie ready in each peer for what is read and written.
    stock: int
    sessions: tuple[int, ...]
    cold: int
    cells: int
    crowd: int
    #: How long the crowd may take to be made; those made until then are the result.
    crowd_s: int
    #: After how long an unused cell of the crowd is given up.
    crowd_idle_s: int


LONG = Size(3, 3, 32, (1, 8, 32, 128), 40, 50, 100_000, 480, 30)
SHORT = Size(1, 1, 32, (1, 8), 8, 8, 500, 7, 1)


@dataclass
class Run:
    """What is known so far."""

    size: Size
    folder: Path
    peers: list[Peer] = field(default_factory=list)
    #: Names of databases by peer: each has the tables.
    stock: dict[str, list[str]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    #: By row and peer, one for each round.
    found: dict[str, dict[str, list[Figures]]] = field(default_factory=dict)
    faults: dict[str, dict[str, str]] = field(default_factory=dict)
    #: Why a row is left out, by row.
    left_out: dict[str, str] = field(default_factory=dict)

    def invite(self, peers: list[Peer], *, fetch: bool) -> None:
        """Start everybody; whoever cannot be started is absent, with the reason."""
        for number, peer in enumerate(peers):
            print(f"starting {peer.name}", flush=True)
            self.peers.append(peer)
            try:
                peer.start(self.folder / str(number), fetch=fetch)
                self.stock[peer.name] = [once(peer.furnished) for _ in range(self.size.stock)]
                if peer.runs_sql:
                    self._ask_version(peer)
            except AbsentError as reason:
                self.absent[peer.name] = str(reason)
            except Exception as fault:  # a peer that fails must not end the run
                self.absent[peer.name] = repr(fault)[:300]
            if peer.name in self.absent:
                print(f"  absent: {self.absent[peer.name]}", flush=True)
                self.stock.pop(peer.name, None)

    def _ask_version(self, peer: Peer) -> None:
        database = self.stock[peer.name][0]
        ((version,),) = once(lambda caller: peer.sql(caller, database, "SELECT sqlite_version()"))
        self.versions[peer.name] = str(version)

    def dismiss(self) -> None:
        """Stop everybody."""
        with contextlib.ExitStack() as everybody:
            for peer in self.peers:
                everybody.callback(peer.stop)

    def among(self, names: tuple[str, ...]) -> list[Peer]:
        """Return those of these names who are present."""
        return [peer for peer in self.peers if peer.name in names and peer.name in self.stock]

    def attempt(self, row: str, who: str, act: Callable[[], Figures]) -> None:
        """Note what was found, or why nothing was."""
        try:
            figures = act()
        except Exception as fault:  # told in the report; the other rows go on
            self.faults.setdefault(row, {})[who] = str(fault)[:300] or repr(fault)
            print(f"  {row}, {who}: FAILED {fault!r}"[:300], flush=True)
            return
        self.found.setdefault(row, {}).setdefault(who, []).append(figures)
        said = ", ".join(f"{name} {number:.4g}" for name, number in figures.items())
        print(f"  {row}, {who}: {said}", flush=True)

    def number(self, row: str, who: str, what: str) -> float | None:
        """Return the median over the rounds, of errors the sum; None if it is not to be trusted."""
        rounds = self.found.get(row, {}).get(who, [])
        fault = self.faults.get(row, {}).get(who) if what == "errors" else self.failed(row, who)
        if fault or not rounds or any(what not in one for one in rounds):
            return None
        numbers = [one[what] for one in rounds]
        return sum(numbers) if what == "errors" else statistics.median(numbers)

    def failed(self, row: str, who: str) -> str:
        """Return why a row is not to be trusted, or nothing."""
        fault = self.faults.get(row, {}).get(who, "")
        errors = sum(one.get("errors", 0) for one in self.found.get(row, {}).get(who, []))
        return fault or (f"{errors:.0f} errors" if errors else "")
