"""The service spoken to in bytes: what is sent, what comes back, and what it costs."""

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.handles import Service, memory_kb, open_folder

SELECT_1 = b'{"sql": "SELECT 1"}'

HOST = b"Host: walkin\r\n"
#: The first lines of requests, to be gone on with.
GET = b"GET /healthz HTTP/1.1\r\n" + HOST
POST = b"POST /sql HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
HEALTH = GET + b"\r\n"


class RawAnswer(NamedTuple):
    """One answer as it came over a socket."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Raw:
    """A connection of bytes, from an address of one's own if asked for."""

    def __init__(self, service: Service, source: str = "", receive_buffer: int = 0) -> None:
        address = urlsplit(service.url)
        self.sock = socket.socket()
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(15)
        self.sock.bind((source, 0))
        self.sock.connect((address.hostname, address.port))
        self._file = self.sock.makefile("rb")

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def send_again_and_again(self, data: bytes, times: int) -> None:
        for _ in range(times):
            self.sock.sendall(data)

    def send_while_it_is_taken(self, data: bytes, within_s: float = 5.0) -> int:
        """Send the same bytes until nobody takes them any more; return how many bytes went out."""
        self.sock.settimeout(0.5)
        sent, give_up = 0, time.monotonic() + within_s
        try:
            while time.monotonic() < give_up:
                sent += self.sock.send(data)
        except OSError:
            pass
        self.sock.settimeout(15)
        return sent

    def answer(self, *, has_body: bool = True) -> RawAnswer:
        """The next answer; EOFError if the server has closed instead."""
        line = self._file.readline()
        if not line:
            raise EOFError
        status = int(line.split()[1])
        headers: dict[str, str] = {}
        while (line := self._file.readline().strip()) != b"":
            name, _, value = line.decode("latin-1").partition(":")
            assert name.lower() not in headers, f"{name} twice"
            headers[name.lower()] = value.strip()
        length = int(headers.get("content-length", "0"))
        return RawAnswer(status, headers, self._file.read(length) if has_body else b"")

    def is_closed(self) -> bool:
        """Whether the server has ended the connection and has said nothing more."""
        return self._file.read(1) == b""

    def close(self) -> None:
        self._file.close()
        self.sock.close()


def request(body: bytes = SELECT_1, *headers: str, path: str = "/sql") -> bytes:
    """A POST as it goes over the wire."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: walkin",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunks(body: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(body), size):
        yield body[at : at + size]


@contextlib.contextmanager
def besiege(**settings: object) -> Iterator[Service]:
    """A service for those who do harm; whatever they did, its log shows no fault."""
    with open_folder() as made:
        service = Service(made, **settings).start()
        try:
            yield service
        finally:
            status = service.stop()
        assert status == 0, service.log()
        assert "Traceback" not in service.log(), service.log()
        assert "ERROR" not in service.log(), service.log()
        # Nor does it grow by a line with each thing that is not HTTP.
        assert "uvicorn" not in service.log(), service.log()


def most_memory_mb(service: Service) -> float:
    """The most memory that the front desk ever had."""
    (pid,) = service.pids("front desk")
    return memory_kb(pid, "VmHWM") / 1024


def health_delay_s(service: Service) -> float:
    """How long a new caller waits for /healthz."""
    began = time.monotonic()
    caller = Raw(service)
    caller.send(HEALTH)
    assert caller.answer().status == 200
    caller.close()
    return time.monotonic() - began
