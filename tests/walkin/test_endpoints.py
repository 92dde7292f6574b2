"""The counter: the whole front desk in one process, before a zygote and cells of the test's."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from sandbox.control import Op, Outcome
from sandbox.frames import Kind, encode
from sandbox.place import Place
from tests.walkin.fakes import (
    Clock,
    FakeCell,
    FakeZygote,
    Run,
    Tell,
    Told,
    always,
    lines_for,
    until,
    zygote_at,
)
from walkin import app as app_module
from walkin.app import build
from walkin.crowd import Crowd
from walkin.ledger import Ledger
from walkin.settings import Secret, Settings
from walkin.tokens import Seal, new_instance_id

Make = Callable[..., Settings]

KEYS = (Secret("k" * 40),)
CALL = b'{"sql":"select 1"}'
INSTANCE = new_instance_id()
TOKEN = Seal(KEYS).issue(INSTANCE)


@contextlib.asynccontextmanager
async def lifespan(app: ASGIApp) -> AsyncIterator[None]:
    """The start and the end that a server gives an application."""
    said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    heard: asyncio.Queue[Any] = asyncio.Queue()
    running = asyncio.ensure_future(app({"type": "lifespan"}, said.get, heard.put))
    said.put_nowait({"type": "lifespan.startup"})
    assert (await heard.get())["type"] == "lifespan.startup.complete"
    try:
        yield
    finally:
        said.put_nowait({"type": "lifespan.shutdown"})
        await running


@dataclass
class Desk:
    """A front desk and the zygote behind it."""

    app: ASGIApp
    zygote: FakeZygote

    async def post(
        self, body: bytes = CALL, peer: str = "192.0.2.1", **headers: str
    ) -> httpx.Response:
        """POST /sql from an address."""
        sent = {"content-type": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.request("POST", "/sql", peer, content=body, headers=sent)

    async def request(
        self, method: str, path: str, peer: str = "192.0.2.1", **more: Any
    ) -> httpx.Response:
        """Any request from an address."""
        transport = httpx.ASGITransport(self.app, client=(peer, 4711))
        async with httpx.AsyncClient(transport=transport, base_url="http://walkin") as client:
            return await client.request(method, path, **more)

    async def cell(self, number: int = 0) -> FakeCell:
        """The cell of the line that was given out as the given one, from 0."""
        await until(lambda: len(self.zygote.cells) > number)
        return self.zygote.cells[number]

    async def served(
        self, status: int = 200, body: bytes = b"{}", number: int = 0, **headers: str
    ) -> httpx.Response:
        """POST /sql with a cell that answers it."""
        posting = asyncio.create_task(self.post(CALL, "192.0.2.1", **headers))
        await (await self.cell(number)).answer(status, body)
        return await posting


@contextlib.asynccontextmanager
async def desk(settings: Settings, tell: Tell | None = None) -> AsyncIterator[Desk]:
    run_dir = Place(settings.data_dir).run
    async with zygote_at(run_dir, tell or lines_for()) as zygote:
        app = build(settings, Seal(KEYS), Ledger(), Crowd(16))
        async with lifespan(app):
            yield Desk(app, zygote)


def refused(response: httpx.Response, status: int, code: str) -> bool:
    """Whether an answer is that refusal, in the error shape."""
    body = response.json()
    assert (response.status_code, body["code"]) == (status, code), response.text
    assert response.headers["content-type"] == "application/json"
    assert body["request_id"] == response.headers["x-request-id"]
    assert isinstance(body["retryable"], bool)
    return bool(body["error"])


def session_headers(response: httpx.Response) -> set[str]:
    return {"x-walkin-session", "x-walkin-ttl"} & set(response.headers)


# --- the first call and the next ---


def test_the_first_answer_brings_the_token_and_the_time_of_deletion(
    run: Run, make_settings: Make
) -> None:
    async def main() -> None:
        async with desk(make_settings(ttl_s=100)) as at:
            before = time.time()
            response = await at.served(200, b'{"rows_affected":0}')
            assert (response.status_code, response.content) == (200, b'{"rows_affected":0}')
            assert response.headers["content-type"] == "application/json"
            (asked,) = at.zygote.asked
            assert (
                Seal(KEYS).verify(response.headers["x-walkin-session"]).instance == asked.instance
            )
            assert asked.amount == 100
            assert before + 100 <= int(response.headers["x-walkin-ttl"]) <= time.time() + 101

    run(main())


def test_a_later_answer_does_not(make_settings: Make) -> None:
    async def main() -> None:
        async with desk(make_settings()) as at:
            response = await at.served(x_walkin_session=TOKEN)
            assert response.status_code == 200
            assert session_headers(response) == set()
            assert [(asked.op, asked.instance) for asked in at.zygote.asked] == [
                (Op.OPEN, INSTANCE)
            ]

    asyncio.run(main())


def test_the_cell_gets_the_body_as_it_came_and_the_id_of_the_request(make_settings: Make) -> None:
    async def main() -> None:
        body = b' { "sql" : "select \\u0031" , "args" : [ 1 ] } '
        async with desk(make_settings(query_timeout_ms=777)) as at:
            posting = asyncio.create_task(at.post(body))
            call = await (await at.cell()).answer()
            assert call.body == body
            assert call.timeout_ms == 777
            assert (await posting).headers["x-request-id"] == call.request_id.hex()

    asyncio.run(main())


@pytest.mark.parametrize("status", [400, 408, 500, 507])
def test_an_error_of_the_cells_passes_unread_and_with_the_token(
    make_settings: Make, status: int
) -> None:
    async def main() -> None:
        async with desk(make_settings()) as at:
            response = await at.served(status, b'{"error":"the cell says so"}')
            assert response.status_code == status
            assert response.content == b'{"error":"the cell says so"}'
            assert session_headers(response) == {"x-walkin-session", "x-walkin-ttl"}

    asyncio.run(main())


@pytest.mark.parametrize("name", ["Application/JSON", "application/json; charset=utf-8"])
def test_a_content_type_is_json_in_any_case_and_with_parameters(
    make_settings: Make, name: str
) -> None:
    async def main() -> None:
        async with desk(make_settings()) as at:
            assert (await at.served(content_type=name)).status_code == 200

    asyncio.run(main())


# --- refusals that make nothing ---


@pytest.mark.parametrize("name", ["", "text/plain", "application/jsonx", "application/json,x"])
def test_another_content_type_is_refused(make_settings: Make, name: str) -> None:
    async def main() -> None:
        async with desk(make_settings()) as at:
            assert refused(await at.post(content_type=name), 415, "content_type")
            assert at.zygote.asked == []

    asyncio.run(main())


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"[]", 400, "invalid_json"),
        (b"{}", 400, "missing_sql"),
        (b'{"sql":"select 1","argz":1}', 400, "unknown_field"),
        (b'{"sql":"select 1","args":1}', 400, "invalid_args"),
        (b'{"sql":"' + b"x" * 8192 + b'"}', 413, "body_too_large"),
    ],
)
def test_a_body_that_is_no_call_makes_no_database(
    make_settings: Make, body: bytes, status: int, code: str
) -> None:
    async def main() -> None:
        async with desk(make_settings()) as at:
            response = await at.post(body)
            assert refused(response, status, code)
            assert session_headers(response) == set()
            assert at.zygote.asked == []

    asyncio.run(main())


@pytest.mark.parametrize(
    "token",
    [
        "",
        "wkn_",
        "x",
        TOKEN[:-1],
        TOKEN + "=",
        TOKEN.lower(),
        f"{TOKEN},{TOKEN}",
        "wkn_" + "A" * 107,
        Seal((Secret("o" * 40),)).issue(INSTANCE),
    ],
)
def test_a_token_that_is_not_ours_is_not_found(make_settings: Make, token: str) -> None:
    async def main() -> None:
        async with desk(make_settings()) as at:
            response = await at.post(x_walkin_session=token)
            assert refused(response, 404, "instance_not_found")
            assert response.json()["error"] == "instance not found"
            assert at.zygote.asked == []

    asyncio.run(main())


def test_two_tokens_at_once_are_not_found(make_settings: Make) -> None:
    async def main() -> None:
        async with desk(make_settings()) as at:
            headers = [("content-type", "application/json")] + [("x-walkin-session", TOKEN)] * 2
            response = await at.request("POST", "/sql", content=CALL, headers=headers)
            assert refused(response, 404, "instance_not_found")

    asyncio.run(main())


# --- what becomes of a call ---


def test_a_token_of_ours_whose_time_is_over_is_not_found_in_the_same_words(
    make_settings: Make,
) -> None:
    async def main() -> None:
        async with desk(make_settings(), always(Outcome.MISSING)) as at:
            response = await at.post(x_walkin_session=TOKEN)
            assert refused(response, 404, "instance_expired")
            assert response.json()["error"] == "instance not found"

    asyncio.run(main())


def test_a_silent_cell_is_a_408_with_the_token(run: Run, make_settings: Make) -> None:
    async def main() -> None:
        async with desk(make_settings(query_timeout_ms=20)) as at:
            response = await at.post()
            assert refused(response, 408, "query_timeout")
            assert response.json()["error"].startswith("query timed out")
            assert session_headers(response) == {"x-walkin-session", "x-walkin-ttl"}

    run(main())


@pytest.mark.parametrize("said", [b"", b"garbage", encode(Kind.END, b"\x01\x90")[:-1] + b"\x00"])
def test_a_cell_that_breaks_off_is_a_500_with_the_token(
    run: Run, make_settings: Make, said: bytes
) -> None:
    async def main() -> None:
        async with desk(make_settings()) as at:
            posting = asyncio.create_task(at.post())
            cell = await at.cell()
            await cell.take()
            await cell.say(said)
            cell.close()
            response = await posting
            assert refused(response, 500, "cell_lost")
            assert response.json()["error"] == "internal error"
            assert session_headers(response) == {"x-walkin-session", "x-walkin-ttl"}

    run(main())


@pytest.mark.parametrize("outcome", [Outcome.BUSY, Outcome.FAILED])
def test_a_node_without_a_cell_to_give_is_busy(make_settings: Make, outcome: Outcome) -> None:
    async def main() -> None:
        async with desk(make_settings(), always(outcome)) as at:
            for response in (await at.post(), await at.post(x_walkin_session=TOKEN)):
                assert refused(response, 503, "busy")
                assert int(response.headers["retry-after"]) >= 1
                assert response.json()["retryable"] is True
                assert session_headers(response) == set()

    asyncio.run(main())


def test_a_database_that_was_made_and_then_finds_no_cell_is_busy_with_the_token(
    run: Run, make_settings: Make
) -> None:
    line = lines_for(encode(Kind.RETIRED))

    def tell(zygote: FakeZygote, request: Any) -> Told | None:
        return line(zygote, request) if request.op is Op.CREATE else Told(Outcome.BUSY)

    async def main() -> None:
        async with desk(make_settings(), tell) as at:
            response = await at.post()
            assert refused(response, 503, "busy")
            assert session_headers(response) == {"x-walkin-session", "x-walkin-ttl"}

    run(main())


def test_without_a_zygote_a_call_is_busy(
    make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module, "_ZYGOTE_PATIENCE_S", 0.1)

    async def main() -> None:
        async with desk(make_settings()) as at:
            at.zygote.close()
            for response in (await at.post(), await at.post(x_walkin_session=TOKEN)):
                assert refused(response, 503, "busy")

    asyncio.run(main())


# --- limits ---


def test_the_61st_call_of_a_minute_is_refused(make_settings: Make) -> None:
    async def main() -> None:
        async with desk(make_settings()) as at:
            statuses = [(await at.post(b"{}")).status_code for _ in range(60)]
            assert statuses == [400] * 60
            response = await at.post()
            assert refused(response, 429, "rate_limited")
            assert 1 <= int(response.headers["retry-after"]) <= 60
            assert (await at.post(b"{}", peer="192.0.2.2")).status_code == 400

    asyncio.run(main())


def test_the_11th_database_of_a_minute_is_refused_and_not_made(make_settings: Make) -> None:
    async def main() -> None:
        async with desk(make_settings()) as at:
            for number in range(10):
                assert (await at.served(number=number)).status_code == 200
            response = await at.post()
            assert refused(response, 429, "creation_limited")
            assert 1 <= int(response.headers["retry-after"]) <= 60
            assert session_headers(response) == set()
            assert at.zygote.ops() == [Op.CREATE] * 10

    asyncio.run(main())


def test_calls_with_a_token_do_not_count_as_databases(make_settings: Make) -> None:
    async def main() -> None:
        async with desk(make_settings(creations_per_min=1)) as at:
            for _ in range(5):
                assert (await at.served(x_walkin_session=TOKEN)).status_code == 200
            assert (await at.served(number=1)).status_code == 200

    asyncio.run(main())


def test_a_body_that_is_no_call_does_not_count_as_a_database(make_settings: Make) -> None:
    async def main() -> None:
        async with desk(make_settings(creations_per_min=1)) as at:
            for _ in range(5):
                await at.post(b"{}")
            assert (await at.served()).status_code == 200

    asyncio.run(main())


def test_a_minute_later_calls_are_let_in_again(make_settings: Make, clock: Clock) -> None:
    async def main() -> None:
        async with desk(make_settings(requests_per_min=1)) as at:
            assert (await at.post(b"{}")).status_code == 400
            assert (await at.post(b"{}")).status_code == 429
            clock.forward(60.1)
            assert (await at.post(b"{}")).status_code == 400

    asyncio.run(main())


@pytest.mark.parametrize(("method", "path"), [("GET", "/healthz"), ("OPTIONS", "/sql")])
def test_health_and_preflights_cost_no_budget(make_settings: Make, method: str, path: str) -> None:
    async def main() -> None:
        async with desk(make_settings(requests_per_min=1)) as at:
            assert {(await at.request(method, path)).is_success for _ in range(20)} == {True}
            assert (await at.post(b"{}")).status_code == 400

    asyncio.run(main())


def test_callers_behind_a_trusted_proxy_are_told_apart(make_settings: Make) -> None:
    async def main() -> None:
        settings = make_settings(requests_per_min=1, trusted_proxies="10.0.0.1")
        async with desk(settings) as at:
            for client in ("198.51.100.1", "198.51.100.2"):
                posts = [
                    await at.post(b"{}", "10.0.0.1", x_forwarded_for=f"{number}, {client}")
                    for number in range(2)
                ]
                assert [post.status_code for post in posts] == [400, 429]

    asyncio.run(main())


def test_what_a_caller_says_of_itself_does_not_lift_a_limit(make_settings: Make) -> None:
    async def main() -> None:
        async with desk(make_settings(requests_per_min=1)) as at:
            for number, status in enumerate([400, 429, 429]):
                told = f"198.51.100.{number}"
                response = await at.post(b"{}", x_forwarded_for=told, x_real_ip=told)
                assert response.status_code == status

    asyncio.run(main())
