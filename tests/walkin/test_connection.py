"""The doorstep: clocks on heads, bodies and readers, and what is not HTTP, on a real server."""

import asyncio
import contextlib
import functools
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from tests.handles import wait_until
from walkin import connection, patience
from walkin import crowd as crowd_module
from walkin.connection import Connection
from walkin.crowd import Crowd
from walkin.ledger import Ledger

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
        #: The names of the last request's fields.
        self.fields: list[bytes] = []

    @contextlib.contextmanager
    def connect(self, receive_buffer: int = 0) -> Iterator[socket.socket]:
        with socket.socket() as sock:
            if receive_buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.connect(("127.0.0.1", self.port))
            sock.settimeout(5)
            yield sock

    def only_one(self) -> Connection:
        """The one connection that there is."""
        (one,) = self.server.server_state.connections
        assert isinstance(one, Connection)
        return one

    def is_rid(self) -> bool:
        """Whether no connection is left."""
        return not self.server.server_state.connections


@pytest.fixture
def crowd() -> Crowd:
    return Crowd(100)


@pytest.fixture
def served(crowd: Crowd) -> Iterator[Served]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = b""
        if scope["path"] == "/wait":
            while (await receive())["type"] != "http.disconnect":
                pass
            body = b"gone"
        elif scope["path"] != "/early":
            message = await receive()
            body = message.get("body", b"")
            while message.get("more_body"):
                message = await receive()
                body += message.get("body", b"")
        served.bodies.append(body)
        served.fields = [name for name, _ in scope["headers"]]
        await asyncio.sleep({"/later": 0.2, "/much-later": 0.6}.get(scope["path"], 0))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        answer = BIG if scope["path"] == "/big" else b"ok"
        await send({"type": "http.response.body", "body": answer})

    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(
            app,
            http=functools.partial(Connection, crowd=crowd, ledger=Ledger()),  # type: ignore[arg-type]
            loop="uvloop",
            lifespan="off",
            ws="none",
            log_config=None,
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
    monkeypatch.setattr(patience, "HEAD_S", 0.3)
    monkeypatch.setattr(patience, "STALL_S", 0.3)


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


def test_the_fields_behind_a_body_are_passed_over(served: Served) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with served.connect() as sock:
        sock.sendall(head + b"1\r\nx\r\n0\r\nX-Late: x\r\n\r\n")
        assert b"200 OK" in sock.recv(4096)
    assert (served.bodies, served.fields) == ([b"x"], [b"host", b"transfer-encoding"])


# --- pipelines ---


def test_what_comes_behind_a_request_in_work_waits_unparsed(served: Served) -> None:
    with served.connect() as sock:
        sock.sendall(GET.replace(b" / ", b" /later ") + GET * 1000)
        wait_until(lambda: served.bodies)
        assert len(served.only_one().pipeline) < connection._PIECE_BYTES / 18
        answers = b""
        while answers.count(b"HTTP/1.1 200") < 1001:
            answers += sock.recv(65_536)


def test_a_head_behind_an_answer_that_was_not_taken_at_first_is_read_on(served: Served) -> None:
    with served.connect(receive_buffer=65_536) as sock:
        sock.sendall(GET.replace(b" / ", b" /big ") + b"GET / HTTP/1.1\r\nX: " + b"x" * 600)
        wait_until(lambda: served.bodies)
        wait_until(lambda: served.only_one()._held)
        left = len(BIG)
        while left > 0:
            left -= len(sock.recv(1 << 20))
        sock.sendall(b"\r\nHost: x\r\n\r\n")
        wait_until(lambda: len(served.bodies) == 2)


def test_a_request_behind_an_answer_that_is_taken_slowly_outlasts_the_keep_alive(
    served: Served,
) -> None:
    served.server.config.timeout_keep_alive = 0.1  # type: ignore[assignment]
    with served.connect(receive_buffer=65_536) as sock:
        filler = b"\r\nX: " + b"x" * 600 + b"\r\n\r\n"
        sock.sendall(GET.replace(b" / ", b" /big ") + GET.replace(b"\r\n\r\n", filler))
        wait_until(lambda: served.bodies)
        threading.Event().wait(0.5)
        got = rest(sock)
    assert got.endswith(b"ok\r\n0\r\n\r\n")


def test_the_answer_to_an_earlier_request_comes_before_the_refusal_of_a_later_one(
    served: Served,
) -> None:
    broken = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nno length\r\n"
    with served.connect() as sock:
        sock.sendall(GET.replace(b" / ", b" /later ") + GET + broken + GET)
        answers = rest(sock)
    statuses = [piece[:3] for piece in answers.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"200", b"400"]


@pytest.mark.parametrize("behind", [b"", GET, GET * 100])
def test_the_request_in_work_learns_that_its_caller_is_gone(served: Served, behind: bytes) -> None:
    with served.connect() as sock:
        sock.sendall(GET.replace(b" / ", b" /wait ") + behind)
        wait_until(lambda: served.server.server_state.tasks)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if len(behind) < 512:  # a longer pipeline is not read on, so its end is not seen
        wait_until(lambda: served.bodies == [b"gone"])


@pytest.mark.usefixtures("impatient")
def test_the_beginning_of_the_next_head_does_not_cost_a_call_its_answer(served: Served) -> None:
    with served.connect() as sock:
        sock.sendall(GET.replace(b" / ", b" /much-later ") + b"GET / HTT")
        said = rest(sock)
    assert said.count(b"HTTP/1.1 200 OK") == 1
    assert b"HTTP/1.1 400" not in said


def test_a_pipeline_of_bodies_is_not_read_on_before_its_turn(served: Served) -> None:
    post = b"POST /later HTTP/1.1\r\nHost: x\r\nContent-Length: 200\r\n\r\n" + b"x" * 200
    with served.connect() as sock:
        sock.settimeout(0.1)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 64 << 20:
                sent += sock.send(post * 1000)
        held = []
        for count in range(2, 6):
            wait_until(lambda count=count: len(served.bodies) >= count)
            held.append(len(served.only_one()._held))
    # One read of the loop's, and not one more with each look at a body.
    assert max(held) <= 256_000 + len(post)
    assert held == sorted(held, reverse=True)


# --- readers ---


def test_a_caller_who_takes_it_too_slowly_is_dropped(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "STALL_S", 1.0)
    monkeypatch.setattr(patience, "_STALL_BYTES", len(BIG))
    with served.connect(receive_buffer=65_536) as sock:
        sock.sendall(GET.replace(b" / ", b" /big "))
        got = 0
        with contextlib.suppress(ConnectionResetError):
            while got < len(BIG) and (piece := sock.recv(20_000)):
                got += len(piece)
                threading.Event().wait(0.005)
    assert got < len(BIG)


def test_of_too_many_who_take_nothing_the_longest_is_dropped(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd_module, "MOST_UNREAD", 1)
    with served.connect(receive_buffer=2048) as one, served.connect(receive_buffer=2048) as two:
        one.sendall(GET.replace(b" / ", b" /big "))
        wait_until(lambda: len(served.bodies) == 1)
        two.sendall(GET.replace(b" / ", b" /big "))
        # Long before the clock on those who take nothing.
        wait_until(lambda: len(served.server.server_state.connections) == 1, 5)
        assert len(rest(one)) < len(BIG)
        assert two.recv(1000)


# --- room ---


def test_of_too_many_long_heads_the_oldest_is_closed(
    served: Served, crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd_module, "MOST_LONG_HEADS", 1)
    long = b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 10_000
    with served.connect() as one, served.connect() as two, served.connect() as three:
        one.sendall(long + b"\r\n\r\n")
        assert b"200 OK" in one.recv(4096)
        two.sendall(long)
        wait_until(lambda: crowd._long_heads)
        three.sendall(long)
        assert rest(two) == b""
        three.sendall(b"\r\n\r\n")
        assert b"200 OK" in three.recv(4096)


@pytest.mark.parametrize("crowd", [Crowd(8)])
@pytest.mark.parametrize("begun", [b"", b"GET / HT", POST % 10 + b"12345", GET])
def test_whoever_owes_a_whole_request_makes_room(served: Served, begun: bytes) -> None:
    with served.connect() as one, served.connect() as two, contextlib.ExitStack() as stack:
        one.sendall(begun)
        if begun == GET:
            assert b"200 OK" in one.recv(4096)
        wait_until(lambda: len(served.server.server_state.connections) == 2)
        two.sendall(GET.replace(b" / ", b" /later "))
        wait_until(lambda: len(served.bodies) == 1 + (begun == GET))
        three = stack.enter_context(served.connect())
        three.sendall(GET)
        assert b"ok" in three.recv(4096)
        assert b"HTTP" not in rest(one)
        assert b"200 OK" in two.recv(4096)


@pytest.mark.parametrize("crowd", [Crowd(4)])
def test_where_nobody_can_make_room_the_newcomer_is_told_so(served: Served) -> None:
    with served.connect() as one:
        one.sendall(GET.replace(b" / ", b" /later "))
        wait_until(lambda: served.bodies)
        with served.connect() as two:
            refused = rest(two)
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: 1\r\n" in refused
        assert b"200 OK" in one.recv(4096)
    wait_until(served.is_rid)
