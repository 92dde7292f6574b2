"""The doorstep: clocks on heads, bodies and readers, and what is not HTTP, on a real server."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from tests.handles import wait_until
from walkin import connection
from walkin.connection import Connection

POST = (
    b"POST /sql HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n"
    b"Content-Length: %d\r\n\r\n"
)
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
BIG = b"x" * (8 << 20)


class Served:
    """A server with this connection class, and connections to it."""

    def __init__(self, server: uvicorn.Server, port: int) -> None:
        self.server = server
        self.port = port
        self.bodies: list[bytes] = []

    @contextlib.contextmanager
    def connect(self, receive_buffer: int = 0) -> Iterator[socket.socket]:
        with socket.socket() as sock:
            if receive_buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.connect(("127.0.0.1", self.port))
            sock.settimeout(5)
            yield sock

    def is_rid(self) -> bool:
        """Whether no connection is left."""
        return not self.server.server_state.connections


@pytest.fixture
def served() -> Iterator[Served]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = b""
        if scope["path"] != "/early":
            message = await receive()
            body = message.get("body", b"")
            while message.get("more_body"):
                message = await receive()
                body += message.get("body", b"")
        served.bodies.append(body)
        if scope["path"] == "/later":
            await asyncio.sleep(0.2)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        answer = BIG if scope["path"] == "/big" else b"ok"
        await send({"type": "http.response.body", "body": answer})

    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(
            app, http=Connection, loop="uvloop", lifespan="off", ws="none", log_config=None
        )
        server = uvicorn.Server(config)
        served = Served(server, listener.getsockname()[1])
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        wait_until(lambda: server.started)
        yield served
        server.should_exit = True
        server.force_exit = True
        thread.join(10)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_S", 0.3)
    monkeypatch.setattr(connection, "STALL_S", 0.3)


def rest(sock: socket.socket) -> bytes:
    """Everything that comes until the server hangs up."""
    pieces = []
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(1 << 20):
            pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("said", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n"])
def test_a_head_that_does_not_come_is_not_waited_for(served: Served, said: bytes) -> None:
    with served.connect() as sock:
        sock.sendall(said)
        assert rest(sock) == b""


@pytest.mark.usefixtures("impatient")
def test_a_second_head_that_does_not_come_is_not_waited_for(served: Served) -> None:
    with served.connect() as sock:
        sock.sendall(GET + b"GET / HT")
        assert rest(sock).endswith(b"ok\r\n0\r\n\r\n")


@pytest.mark.usefixtures("impatient")
def test_the_rest_of_a_body_behind_its_answer_is_not_waited_for(served: Served) -> None:
    with served.connect() as sock:
        sock.sendall(b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
        assert b"200 OK" in sock.recv(4096)
        sock.sendall(b"x")
        rest(sock)
    wait_until(served.is_rid)


@pytest.mark.usefixtures("impatient")
def test_a_caller_who_takes_nothing_is_dropped(served: Served) -> None:
    with served.connect(receive_buffer=2048) as sock:
        sock.sendall(GET.replace(b" / ", b" /big "))
        wait_until(lambda: served.bodies)
        wait_until(served.is_rid, 5, "the connection is dropped")


@pytest.mark.usefixtures("impatient")
def test_a_caller_who_takes_it_slowly_gets_it_all(served: Served) -> None:
    with served.connect(receive_buffer=65_536) as sock:
        sock.sendall(
            GET.replace(b" / ", b" /big ").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        )
        got = 0
        while piece := sock.recv(1 << 17):
            got += len(piece)
            threading.Event().wait(0.005)
        assert got > len(BIG)


@pytest.mark.parametrize("cut", range(POST.index(b"\r\nUpgrade"), POST.index(b"Upgrade: h2c") + 13))
def test_a_body_behind_an_offer_is_never_taken_for_a_request(served: Served, cut: int) -> None:
    hidden = GET
    request = POST % len(hidden) + hidden
    with served.connect() as sock:
        sock.sendall(request[:cut])
        wait_until(lambda: served.server.server_state.connections)
        threading.Event().wait(0.01)
        sock.sendall(request[cut:])
        sock.shutdown(socket.SHUT_WR)
        answers = sock.recv(65_536)
    assert answers.count(b"HTTP/1.1 ") == 1
    # Passed over with its body whole, or refused.
    assert served.bodies == ([hidden] if b"200 OK" in answers else [])


def test_a_whole_request_before_what_is_not_http_gets_its_answer(served: Served) -> None:
    with served.connect() as sock:
        sock.sendall(GET.replace(b" / ", b" /later ") + b"garbage\r\n\r\n")
        answer = rest(sock)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"200 OK" in answer


def test_a_body_that_is_no_longer_http_is_refused_at_once(served: Served) -> None:
    with served.connect() as sock:
        sock.sendall(
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnot a length\r\n"
        )
        assert b"invalid_http" in rest(sock)


def test_a_head_over_its_bound_is_refused(served: Served) -> None:
    with served.connect() as sock, contextlib.suppress(ConnectionError):
        sock.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * (connection.MAX_HEAD_BYTES + 70_000))
        assert b"invalid_http" in sock.recv(65_536)
