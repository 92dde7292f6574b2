"""The promise: code that has taken a cell over cannot leave it. Tried in real cells, act by act.

Each act of tests/hostile/acts.py is done in a cell of its own, natively, behind all walls; once
more with the filter of system calls left out, to show what Landlock and the limits hold by
themselves; and once in a free process, to show that it is the walls that stop it. Then every
system call that the kernel has is made: those that are not on the list kill.
"""

import contextlib
import dataclasses
import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandbox import jail, kernel
from sandbox.jail import Walls
from sandbox.place import DATABASE, FILES
from sandbox.sqlite import blank_database
from tests.handles import ROOT, open_folder, wait_until
from tests.hostile import acts
from tests.hostile.acts import ACTS, KILLED, NOT_FREE, Scene
from tests.hostile.traitor import ACT, WITHOUT_SECCOMP
from tests.sandbox.handles import (
    Child,
    End,
    Zygote,
    confined,
    give_to_cells,
    in_child,
    make_database_folder,
)

#: More than any kernel has on a machine that walkin runs on; what it has not kills as well.
_SYSTEM_CALLS = 480
#: uprobe(2) of x86-64 passes every filter by the kernel's own will, and is of no use to anyone
#: whom the kernel has not sent there.
_PASSED = {336: "ENXIO"} if os.uname().machine == "x86_64" else {}
BUILD = ROOT / "tests" / "hostile" / "build"


class Surroundings:
    """What lies around a cell besides databases: a key file, a way out, servers that listen."""

    def __init__(self, folder: Path) -> None:
        self.free = folder / "free"
        self.free.mkdir(mode=0o777)
        self.free.chmod(0o777)
        self.keys = folder / "token-keys"
        self.keys.write_text("secret")
        give_to_cells(self.keys)
        self.link = folder / "link"
        self.link.symlink_to("/etc/passwd")
        self.abstract = f"walkin-test-{os.getpid()}-{folder.name}"
        self.tcp = socket.create_server(("127.0.0.1", 0))
        kinds = {
            "hidden": socket.SOCK_STREAM,
            "sock": socket.SOCK_STREAM,
            "control": socket.SOCK_SEQPACKET,
        }
        self._listeners = [self.tcp]
        for name, kind in kinds.items():
            listener = socket.socket(socket.AF_UNIX, kind)
            listener.bind(f"\0{self.abstract}" if name == "hidden" else str(self.free / name))
            listener.listen()
            self._listeners.append(listener)
        for name in ("sock", "control"):
            (self.free / name).chmod(0o777)

    def scene(self, own: Path, other: Path, sibling: int, parent: int, control: Path) -> Scene:
        return Scene(
            own=str(own),
            file=str(own / DATABASE),
            wal=str(own / FILES[1]),
            other=str(other),
            other_file=str(other / DATABASE),
            link=str(self.link),
            free=str(self.free),
            keys=str(self.keys),
            control=str(control),
            named=str(self.free / "sock"),
            abstract=self.abstract,
            port=self.tcp.getsockname()[1],
            sibling=sibling,
            parent=parent,
        )

    def is_untouched(self) -> bool:
        """Nothing was made where anyone may make files."""
        return {path.name for path in self.free.iterdir()} == {"sock", "control"}

    def close(self) -> None:
        for listener in self._listeners:
            listener.close()


class Prison:
    """A zygote whose cells do as they are told, and a neighbour who does nothing wrong."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self._around = Surroundings(folder)
        self._zygote = Zygote(folder / "data", blank_cells=2)
        self._zygote.env |= {"PYTHONPATH": f"{BUILD}:{ROOT}", **environ}
        self._zygote.start()
        self._neighbour, self._line = self._zygote.create()
        self._line.sql("CREATE TABLE t(a); INSERT INTO t VALUES(1)")
        self._sibling = self._zygote.cell(self._neighbour)

    def outcome(self, name: str) -> str:
        """Have a new cell do one act; return its word, or the signal that it died of."""
        instance, line = self._zygote.create()
        own, other = map(self._zygote.place.folder, (instance, self._neighbour))
        control = self._zygote.place.run / "control.sock"
        scene = self._around.scene(own, other, self._sibling, self._zygote.pid, control)
        try:
            line.send(ACT + name, dataclasses.asdict(scene))
            answer = line.answer_if_any()
            return str(answer.rows[0][0]) if answer else self._cause_of_death(instance)
        finally:
            line.close()
            self._zygote.kill(instance)
            assert {path.name for path in own.iterdir()} == set(FILES)

    def _cause_of_death(self, instance: bytes) -> str:
        died = re.compile(f"of {instance.hex()} died of ([A-Z]+): ")
        return str(wait_until(lambda: died.search(self._zygote.log()), 5, "its death").group(1))

    def is_whole(self) -> bool:
        """The neighbour is as it was, and nothing new lies anywhere."""
        return (
            self._line.sql("SELECT a FROM t").rows == [[1]]
            and self._zygote.cell(self._neighbour) == self._sibling
            and self._around.is_untouched()
        )

    def close(self) -> None:
        self._zygote.close()
        self._around.close()


@contextlib.contextmanager
def prison(**environ: str) -> Iterator[Prison]:
    with open_folder() as folder:
        one = Prison(folder, environ)
        try:
            yield one
            assert one.is_whole()
        finally:
            one.close()


@pytest.fixture(scope="module")
def walled() -> Iterator[Prison]:
    with prison() as one:
        yield one


@pytest.fixture(scope="module")
def unfiltered() -> Iterator[Prison]:
    with prison(**{WITHOUT_SECCOMP: "1"}) as one:
        yield one


@pytest.mark.parametrize("name", ACTS)
def test_a_cell_cannot(walled: Prison, name: str) -> None:
    _, expected, _ = ACTS[name]
    assert walled.outcome(name) == expected
    assert expected != acts.DONE


@pytest.mark.parametrize("name", [name for name, row in ACTS.items() if row[2]])
def test_without_the_filter_a_cell_still_cannot(unfiltered: Prison, name: str) -> None:
    _, _, expected = ACTS[name]
    assert unfiltered.outcome(name) == expected


@pytest.mark.parametrize("name", sorted(ACTS.keys() - NOT_FREE))
def test_a_free_process_can(folder: Path, start_child: Callable[..., Child], name: str) -> None:
    for one in ("own", "other"):
        make_database_folder(folder / one, blank_database())
    victim = start_child(lambda sock: (sock.send(b"here"), sock.recv(1)))
    assert victim.hear() == "here", "it has become the user that all of these are"
    around = Surroundings(folder)
    scene = around.scene(
        folder / "own", folder / "other", victim.pid, victim.pid, around.free / "control"
    )

    def freely(_: socket.socket) -> str:
        # The kernel takes this away from whoever changes its user.
        kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
        return acts.outcome(ACTS[name][0], scene)

    with contextlib.closing(around):
        end = in_child(freely)
    # Whoever runs another program has no last word.
    assert end == End("" if name == "run a program" else acts.DONE, 0)


@pytest.mark.alone
def test_every_system_call_that_is_not_on_the_list_kills(own: Path, walls: Walls) -> None:
    listed = {acts.number_of(name) for name in [*jail._ALLOWED, *jail._REFUSED, *jail._WITHOUT]}
    parent = os.getpid()
    wrong = {}
    for number in range(_SYSTEM_CALLS):
        if number not in listed:

            def make(sock: socket.socket, number: int = number) -> str:
                confined(sock, own, walls, parent)
                acts.by_number(number)
                return acts.DONE

            end = in_child(make)
            if end.signal != KILLED and end.word != _PASSED.get(number):
                wrong[number] = end
    assert wrong == {}
