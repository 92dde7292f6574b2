"""The pen: it writes to the byte what uvicorn would have written, and in one piece."""

import asyncio
import contextlib
import functools
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tests.handles import wait_until
from walkin.bodies import WHOLE
from walkin.connection import Connection
from walkin.crowd import Crowd
from walkin.ledger import Ledger

JSON = (b"content-type", b"application/json")

#: An answer by its path: status, fields, pieces of the body.
ANSWERS: dict[str, tuple[int, list[tuple[bytes, bytes]], list[bytes]]] = {
    "/whole": (200, [JSON, (b"content-length", b"2")], [b"{}"]),
    "/empty": (200, [(b"content-length", b"0")], [b""]),
    "/error": (404, [JSON, (b"content-length", b"2"), (b"allow", b"GET, POST")], [b"{}"]),
    "/close": (413, [(b"content-length", b"2"), (b"connection", b"close")], [b"{}"]),
    "/nothing": (204, [], [b""]),
    "/no-length": (200, [JSON], [b"{}"]),
    "/parts": (200, [(b"content-length", b"4")], [b"ab", b"cd"]),
    "/chunks": (200, [JSON], [b"ab", b"", b"cd"]),
    "/long": (200, [(b"content-length", b"300000")], [b"x" * 300_000]),
    "/many-fields": (
        200,
        [(b"content-length", b"2"), *((b"x-%d" % n, b"y") for n in range(50))],
        [b"{}"],
    ),
    # These it leaves to uvicorn, which notices.
    "/too-short": (200, [(b"content-length", b"3")], [b"{}"]),
    "/too-long": (200, [(b"content-length", b"1")], [b"{}"]),
}
BROKEN = {
    "/line-end": (200, [(b"content-length", b"2"), (b"x", b"a\r\nset-cookie: b")], [b"{}"]),
    "/line-feed": (200, [(b"content-length", b"2"), (b"x", b"a\nb")], [b"{}"]),
}


async def answer(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/whole-body":
        pieces = [str(scope.get(WHOLE)).encode()]
        status, fields = 200, [(b"content-length", b"%d" % len(pieces[0]))]
    else:
        status, fields, pieces = (ANSWERS | BROKEN)[scope["path"]]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    for at, piece in enumerate(pieces):
        more = at + 1 < len(pieces)
        await send({"type": "http.response.body", "body": piece, "more_body": more})


@contextlib.contextmanager
def serving(protocol: Any) -> Iterator[int]:
    """A server with this kind of connection; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(
            uvicorn.Config(
                answer, http=protocol, loop="uvloop", lifespan="off", ws="none", log_config=None
            )
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        wait_until(lambda: server.started)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = server.force_exit = True
            thread.join(10)


@pytest.fixture(scope="module")
def with_pen() -> Iterator[int]:
    with serving(functools.partial(Connection, crowd=Crowd(100), ledger=Ledger())) as port:
        yield port


@pytest.fixture(scope="module")
def without_pen() -> Iterator[int]:
    with serving(HttpToolsProtocol) as port:
        yield port


LAST = "GET /whole HTTP/1.1\r\nConnection: close"


def asked(port: int, *heads: str) -> bytes:
    """Everything that the server says to these requests, its clock aside."""
    with socket.create_connection(("127.0.0.1", port), 5) as sock:
        sock.sendall("".join(f"{head}\r\nHost: x\r\n\r\n" for head in heads).encode())
        said = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := sock.recv(1 << 20):
                said += piece
    return re.sub(rb"date: [^\r]+", b"date: now", said)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ANSWERS)
def test_it_writes_what_uvicorn_would(
    with_pen: int, without_pen: int, path: str, method: str, version: str
) -> None:
    said = asked(with_pen, f"{method} {path} HTTP/{version}", LAST)
    assert said == asked(without_pen, f"{method} {path} HTTP/{version}", LAST)
    assert said.startswith(b"HTTP/1.1 %d " % ANSWERS[path][0])


def test_a_connection_that_is_to_close_is_closed(with_pen: int, without_pen: int) -> None:
    heads = [LAST, "GET /whole HTTP/1.1"]
    said = asked(with_pen, *heads)
    assert said == asked(without_pen, *heads)
    assert said.count(b"HTTP/1.1 200") == 1
    assert b"connection: close\r\n" in said


def test_pipelined_answers_come_in_order(with_pen: int, without_pen: int) -> None:
    heads = [f"GET {path} HTTP/1.1" for path in ("/whole", "/error", "/parts", "/long", "/empty")]
    heads.append(LAST)
    assert asked(with_pen, *heads) == asked(without_pen, *heads)


@pytest.mark.parametrize("path", BROKEN)
def test_a_field_cannot_hold_another(with_pen: int, path: str) -> None:
    assert asked(with_pen, f"GET {path} HTTP/1.1").startswith(b"HTTP/1.1 500 ")


def test_a_whole_answer_comes_in_one_piece(with_pen: int) -> None:
    """Each write of the server arrives by itself where nothing waits in between."""

    class Transport(asyncio.Transport):
        def __init__(self) -> None:
            super().__init__()
            self.written: list[bytes] = []

        def write(self, data: Any) -> None:
            self.written.append(bytes(data))

        def is_closing(self) -> bool:
            return False

        def close(self) -> None:
            pass

        def pause_reading(self) -> None:
            pass

        def resume_reading(self) -> None:
            pass

        def get_write_buffer_size(self) -> int:
            return 0

    async def main() -> list[bytes]:
        transport = Transport()
        config = uvicorn.Config(answer, http="httptools", lifespan="off", log_config=None)
        config.load()
        state = uvicorn.server.ServerState()
        one = Connection(config, state, {}, crowd=Crowd(10), ledger=Ledger())
        one.connection_made(transport)
        one.data_received(b"GET /whole HTTP/1.1\r\nHost: x\r\n\r\n")
        while not transport.written:
            await asyncio.sleep(0)
        one.connection_lost(None)
        return transport.written

    (written,) = asyncio.run(main())
    assert written.startswith(b"HTTP/1.1 200 OK\r\n")
    assert written.endswith(b"\r\n\r\n{}")


def test_a_body_that_is_here_is_said_to_be(with_pen: int) -> None:
    assert b"\r\n\r\nTrue" in asked(with_pen, "GET /whole-body HTTP/1.1", LAST)


def test_a_body_that_is_on_its_way_is_said_not_to_be(with_pen: int) -> None:
    with socket.create_connection(("127.0.0.1", with_pen), 5) as sock:
        sock.sendall(b"POST /whole-body HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
        assert sock.recv(10_000).endswith(b"False")
