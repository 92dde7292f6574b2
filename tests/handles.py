"""The one way to start real processes in tests: a service with its log, pids and clients."""

import base64
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parent.parent
CI = os.environ.get("CI") == "true"

#: Settings under which tests are not in each other's way; a test that is about one sets it.
_QUIET = {
    "WALKIN_PORT": "0",
    "WALKIN_REQUESTS_PER_MIN": "0",
    "WALKIN_FORKS_PER_MIN": "0",
    "WALKIN_CREATIONS_PER_MIN": "0",
}


def wait_until(state: Callable[[], Any], within_s: float = 10.0, what: str = "") -> Any:
    """Poll until `state()` is true and return it; fail after `within_s`."""
    give_up = time.monotonic() + within_s
    while True:
        found = state()
        if found:
            return found
        if time.monotonic() > give_up:
            raise AssertionError(f"not within {within_s} s: {what or state}")
        time.sleep(0.01)


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """A temporary folder that the cells' user can reach (pytest's own are closed to others)."""
    folder = Path(tempfile.mkdtemp(prefix="walkin-test-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Answer:
    """One HTTP answer: status, headers, JSON."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.headers = response.headers
        self.text = response.text

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def code(self) -> str | None:
        return self.json.get("code")

    @property
    def rows(self) -> list[list[Any]]:
        assert self.status == 200, self.text
        return self.json["rows"]

    def __repr__(self) -> str:
        return f"<{self.status} {self.text[:300]}>"


class Client:
    """A caller with one database: the first `sql` makes it, the later ones use its token."""

    def __init__(self, url: str, token: str | None = None) -> None:
        # No TLS here, so no certificates to load: that alone would take most of a short test.
        self.http = httpx.Client(base_url=url, timeout=30, trust_env=False, verify=False)
        self.token = token
        self.expires: int | None = None

    def sql(self, sql: str, args: Any = None, **headers: str) -> Answer:
        call = {"sql": sql} if args is None else {"sql": sql, "args": args}
        return self.post(json.dumps(call).encode(), **headers)

    def call(self, sql: str, headers: dict[str, str] | None = None, **options: Any) -> Answer:
        """As `sql`, with members of the body by name: `call("SELECT 1", readonly=True)`."""
        return self.post(json.dumps({"sql": sql} | options).encode(), **headers or {})

    def post(self, body: bytes, **headers: str) -> Answer:
        sent = {"Content-Type": "application/json"}
        if self.token:
            sent["X-Walkin-Session"] = self.token
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        response = self.http.post("/sql", content=body, headers=sent)
        if "x-walkin-session" in response.headers:
            self.token = response.headers["x-walkin-session"]
            self.expires = int(response.headers["x-walkin-ttl"])
        return Answer(response)

    def get(self, path: str) -> Answer:
        return Answer(self.http.get(path))

    @property
    def instance(self) -> str:
        """The id inside the token, as its folder and its cell are named."""
        assert self.token
        return base64.urlsafe_b64decode(self.token[4:68])[:16].hex()

    def close(self) -> None:
        self.http.close()


class Service:
    """`walkin serve` as a real process on a free port with a data folder of its own."""

    def __init__(self, data_dir: Path, python_path: Path | None = None, **settings: Any) -> None:
        self.data_dir = data_dir
        self._log = data_dir / "test.log"
        self.env = {
            **{name: text for name, text in os.environ.items() if not name.startswith("WALKIN_")},
            **_QUIET,
            "WALKIN_DATA_DIR": str(data_dir),
            **{f"WALKIN_{name.upper()}": str(value) for name, value in settings.items()},
        }
        if python_path:
            before = self.env.get("PYTHONPATH")
            self.env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(python_path), before)))
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self._clients: list[Client] = []

    def start(self) -> "Service":
        with self._log.open("ab") as log:
            at = log.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "walkin.cli", "serve"],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
            )

        def listening() -> re.Match[str] | None:
            assert self.process is not None
            assert self.process.poll() is None, self.log()
            return re.search(r"walkin listens on (http://\S+),", self.log()[at:])

        self.url = wait_until(listening, 30, "the greeting").group(1)
        return self

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def client(self, token: str | None = None) -> Client:
        client = Client(self.url, token)
        self._clients.append(client)
        return client

    def pids(self, role: str) -> list[int]:
        """The service's own processes by title: `zygote`, `reaper`, `front desk`, `cell <id>`."""
        return [pid for pid, title in self._family() if title == f"walkin: {role}"]

    def programs(self) -> dict[int, str]:
        """What the service's first process has started, without their own children, by pid."""
        assert self.process is not None
        return {pid: title for pid, parent, title in _processes() if parent == self.process.pid}

    def family(self) -> list[str]:
        """The titles of all processes of this service."""
        return [title for _, title in self._family()]

    def _family(self) -> list[tuple[int, str]]:
        """Every process below the service's first, as (pid, title)."""
        assert self.process is not None
        children: dict[int, list[tuple[int, str]]] = {}
        for pid, parent, title in _processes():
            children.setdefault(parent, []).append((pid, title))
        found = children.get(self.process.pid, [])
        for pid, _ in found:  # grows while it is walked
            found += children.get(pid, [])
        return found

    def signal(self, role: str, number: int) -> int:
        """Send a signal to the one process of that role and return its pid."""
        pid = self.pid(role)
        os.kill(pid, number)
        return pid

    def pid(self, role: str) -> int:
        """The pid of the one process of that role: a forked child has its parent's title first."""
        (pid,) = wait_until(lambda: len(found := self.pids(role)) == 1 and found, 10, role)
        return int(pid)

    def cell(self, client: Client) -> int:
        """The pid of the cell that has this client's database."""
        role = f"cell {client.instance}"
        (pid,) = wait_until(lambda: self.pids(role), 5, role)
        return pid

    def traces(self) -> list[Path]:
        """Everything that the data folder still holds of any database."""
        cells = self.data_dir / "cells"
        places = ("instances/*/*", "expiry/*/*", "due/*/*", "kept/*/*", "trash/*")
        while True:
            with contextlib.suppress(FileNotFoundError):  # the reaper was quicker than the look
                return [path for place in places for path in cells.glob(place)]

    def stop(self) -> int:
        """SIGTERM, then the exit status. Everything must be gone afterwards."""
        assert self.process is not None
        for client in self._clients:
            client.close()
        self._clients.clear()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def kill(self) -> None:
        """SIGKILL the supervisor; the others notice within seconds."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)


def is_running(pid: int) -> bool:
    """Say whether a process is there and not merely waiting to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def memory_kb(pid: int, field: str) -> int:
    """A process' memory in KiB: VmRSS now, VmHWM at the most so far (proc_pid_status(5))."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"{field}:\s+(\d+) kB", text)
    assert found
    return int(found.group(1))


def wait_for_end(*pids: int, within_s: float = 5.0) -> None:
    """Wait until none of these processes is running."""
    wait_until(lambda: not any(map(is_running, pids)), within_s, f"the end of {pids}")


def cpu_s(pid: int) -> float:
    """Return how many seconds of processor time a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _processes() -> list[tuple[int, int, str]]:
    """All processes as (pid, parent, title)."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                stat = (folder / "stat").read_text()
                title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                if stat.rpartition(")")[2].split()[0] != "Z":
                    parent = int(stat.rpartition(")")[2].split()[1])
                    found.append((int(folder.name), parent, title))
    return found
