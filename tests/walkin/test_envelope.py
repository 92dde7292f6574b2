"""The envelope: every answer has an id and the CORS headers, and a fault shows nothing."""

import asyncio
import json
import logging
import re
from typing import Any

import httpx
import orjson
import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from walkin.envelope import REQUEST_ID, Envelope
from walkin.ledger import CALL, Ledger


async def plain(_: Scope, __: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": [(b"x-own", b"1")]})
    await send({"type": "http.response.body", "body": b""})


async def failing(_: Scope, __: Receive, ___: Send) -> None:
    raise RuntimeError("secret of the house")


async def failing_midway(_: Scope, __: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise RuntimeError("secret of the house")


def answer(app: ASGIApp, method: str = "GET", path: str = "/") -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(Envelope(app, Ledger(), ()))
        async with httpx.AsyncClient(transport=transport, base_url="http://walkin") as client:
            return await client.request(method, path)

    return asyncio.run(ask())


@pytest.mark.parametrize("app", [plain, failing])
@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-methods", "GET, POST, PUT, PATCH, DELETE, OPTIONS"),
        ("access-control-allow-headers", "Content-Type, X-Walkin-Session, Idempotency-Key"),
        ("access-control-max-age", "86400"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
    ],
)
def test_every_answer_has(app: ASGIApp, header: str, value: str) -> None:
    assert answer(app).headers.get_list(header) == [value]


def test_a_browser_may_read_the_headers_of_ours() -> None:
    exposed = answer(plain).headers["access-control-expose-headers"].split(", ")
    assert set(exposed) == {
        "X-Walkin-Session",
        "X-Walkin-Ttl",
        "X-Request-Id",
        "Retry-After",
        "Server-Timing",
        "RateLimit",
        "RateLimit-Policy",
        "X-Walkin-Truncated",
        "Idempotency-Replayed",
    }


def test_where_the_time_went_is_said_of_a_call_that_a_cell_has_answered() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope[CALL].waited_s, scope[CALL].took_s = 0.0012, 0.0345
        await plain(scope, receive, send)

    times = answer(app).headers["server-timing"]
    found = re.fullmatch(r"queue;dur=1\.20, sql;dur=34\.50, total;dur=([0-9]+\.[0-9]{2})", times)
    assert found
    assert float(found[1]) < 10_000


@pytest.mark.parametrize("app", [plain, failing])
def test_where_the_time_went_is_not_said_of_any_other(app: ASGIApp) -> None:
    assert "server-timing" not in answer(app).headers


def test_an_answer_keeps_the_headers_it_had() -> None:
    assert answer(plain).headers["x-own"] == "1"


def test_every_request_has_an_id_of_its_own() -> None:
    ids = {answer(plain).headers["x-request-id"] for _ in range(20)}
    assert len(ids) == 20
    assert {len(bytes.fromhex(text)) for text in ids} == {16}


def test_the_application_is_told_the_id_that_the_answer_carries() -> None:
    told = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        told.append(scope[REQUEST_ID].hex())
        await plain(scope, receive, send)

    assert answer(app).headers["x-request-id"] == told[0]


def test_a_fault_is_a_500_in_the_error_shape() -> None:
    response = answer(failing)
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {
        "error": "internal error",
        "code": "internal",
        "retryable": False,
        "request_id": response.headers["x-request-id"],
    }


def test_a_fault_is_logged_under_its_request_id(caplog: pytest.LogCaptureFixture) -> None:
    response = answer(failing)
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert vars(record)["request_id"] == response.json()["request_id"]
    assert record.exc_info is not None


def test_a_fault_in_the_middle_of_an_answer_is_left_to_the_server() -> None:
    with pytest.raises(RuntimeError):
        answer(failing_midway)


def test_a_fault_shows_nothing_of_its_cause() -> None:
    assert "secret" not in json.dumps([answer(failing).text, dict(answer(failing).headers)])


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
def test_what_is_not_http_passes_untouched(kind: str) -> None:
    passed: list[Any] = []

    async def app(*call: Any) -> None:
        passed.append(call)

    async def nothing() -> dict[str, Any]:
        return {}

    async def drop(_: Any) -> None:
        return None

    scope = {"type": kind}
    asyncio.run(Envelope(app, Ledger(), ())(scope, nothing, drop))
    assert passed == [(scope, nothing, drop)]
    assert scope == {"type": kind}


def test_a_request_cancelled_before_its_answer_is_not_invited_to_come_back() -> None:
    sent: list[Any] = []

    async def cancelled(*_: Any) -> None:
        raise asyncio.CancelledError

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(
        Envelope(cancelled, Ledger(), ())({"type": "http", "path": "/"}, asyncio.Event().wait, send)
    )  # type: ignore[arg-type]
    assert sent[0]["status"] == 500
    assert orjson.loads(sent[1]["body"])["code"] == "cell_lost"
    assert orjson.loads(sent[1]["body"])["retryable"] is False


def test_a_request_cancelled_in_its_answer_stays_cancelled() -> None:
    async def cancelled(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise asyncio.CancelledError

    async def send(_: Any) -> None:
        return

    async def ask() -> None:
        with pytest.raises(asyncio.CancelledError):
            await Envelope(cancelled, Ledger(), ())(
                {"type": "http", "path": "/"}, asyncio.Event().wait, send
            )  # type: ignore[arg-type]

    asyncio.run(ask())


def test_a_caller_who_left_in_the_middle_is_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    async def unsendable(message: Message) -> None:
        if message["type"] == "http.response.body":
            raise RuntimeError("the transport is closed")

    async def nothing() -> Message:
        return {"type": "http.disconnect"}

    async def app(_: Request) -> Response:
        return Response(b"x" * 100)

    with caplog.at_level(logging.INFO):
        starlette = Starlette(
            routes=[Route("/", app)],
            exception_handlers={ClientDisconnect: lambda _, __: Response(status_code=400)},
        )
        scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        asyncio.run(Envelope(starlette, Ledger(), ())(scope, nothing, unsendable))
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "the caller is gone" in caplog.text
