"""Each program started by itself under a user of its own, as the units in deploy/ do it."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandbox import control
from tests.handles import ROOT, Client, wait_until

FRONT, CELLS, REAPER = 64_001, 64_002, 64_003
#: The interpreter of the tests may be root's alone, so everything is loaded before the fall; what
#: loads more later, or needs the capability anyway, is started with CAP_DAC_OVERRIDE.
FALL = f"""
import os, sys
import sandbox.__main__ as program
os.setgroups([])
os.setresgid({CELLS}, {CELLS}, {CELLS})
os.setresuid({CELLS}, {CELLS}, {CELLS})
sys.exit(program.main())
"""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be three users")


def as_user(user: int, *command: str) -> list[str]:
    return [
        *("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"),
        *("--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override"),
        *("--bounding-set=-all,+dac_override", *command),
    ]


class Node:
    """The three programs, and the sockets that systemd would hold."""

    def __init__(self, folder: Path) -> None:
        self.data_dir = folder / "data"
        run = self.data_dir / "run"
        run.mkdir(parents=True)
        for made in (self.data_dir, run):
            os.chown(made, CELLS, CELLS)
        key_file = folder / "token-keys"
        key_file.write_text("k" * 50 + "\n")
        key_file.chmod(0o640)
        os.chown(key_file, 0, FRONT)
        self.env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "WALKIN_DATA_DIR": str(self.data_dir),
            "WALKIN_FRONT_USER": str(FRONT),
            "WALKIN_REAPER_USER": str(REAPER),
            "WALKIN_TOKEN_KEYS_FILE": str(key_file),
            "WALKIN_TTL_S": "3",
        }
        self._log = folder / "log"
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(100)
        self._control = control.listen(run)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.processes = {
            "zygote": self._start(self._control, sys.executable, "-c", FALL),
            "front": self._start(
                self._listener, *as_user(FRONT, sys.executable, "-P", "-m", "walkin")
            ),
            "reaper": self._start(None, *as_user(REAPER, sys.executable, "-P", "-m", "reaper")),
        }

    def _start(self, sock: socket.socket | None, *command: str) -> "subprocess.Popen[bytes]":
        fds = () if sock is None else (sock.fileno(),)
        words = [] if sock is None else ["--listen-fd", str(sock.fileno())]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [*command, *words], env=self.env, pass_fds=fds, stdout=log, stderr=log, cwd=ROOT
            )

    def log(self) -> str:
        return self._log.read_text()

    def close(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait(15)
        self._listener.close()
        self._control.close()


@pytest.fixture
def node(folder: Path, tool: Callable[[str], str]) -> Iterator[Node]:
    tool("setpriv")
    one = Node(folder)
    yield one
    one.close()


def user_of(process: "subprocess.Popen[bytes]") -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("Uid:")[2].split()[0])


def test_they_work_together(node: Node) -> None:
    client = Client(node.url)
    wait_until(lambda: client.get("/readyz").status == 200, 20, "the node is ready")
    assert {name: user_of(process) for name, process in node.processes.items()} == {
        "zygote": CELLS,
        "front": FRONT,
        "reaper": REAPER,
    }
    assert client.sql("CREATE TABLE t(x); INSERT INTO t VALUES (1)").status == 200
    assert client.sql("SELECT x FROM t").rows == [[1]]
    cells = node.data_dir / "cells"
    folder = cells / "instances" / client.instance[-2:] / client.instance
    assert folder.stat().st_uid == CELLS
    wait_until(lambda: not list(cells.glob("*/*/*")), 15, "it has expired and is gone")
    assert client.sql("SELECT x FROM t").status == 404
    client.close()
    assert "Traceback" not in node.log()


def test_a_stranger_gets_nothing_from_the_zygote(node: Node) -> None:
    client = Client(node.url)
    wait_until(lambda: client.get("/readyz").status == 200, 20, "the node is ready")
    client.close()
    # Root itself is none of the three here.
    with control.connect(node.data_dir / "run") as sock:
        sock.settimeout(5)
        assert sock.recv(100) == b""
    wait_until(lambda: "control connection of user 0 refused" in node.log(), 5)
