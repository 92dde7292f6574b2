"""The assembly: paths and methods, and nothing that leaves the error shape."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.handles import ROOT
from walkin import bodies
from walkin.app import build
from walkin.crowd import Crowd
from walkin.ledger import Ledger
from walkin.settings import Secret, Settings
from walkin.tokens import Seal

PATHS = ("/sql", "/healthz", "/readyz", "/status", "/openapi.json")

Ask = Callable[..., httpx.Response]


@pytest.fixture
def ask(make_settings: Callable[..., Settings]) -> Ask:
    """One request to a new front desk without a zygote."""
    app = build(make_settings(), Seal((Secret("k" * 40),)), Ledger(), Crowd(16))

    def ask(method: str, path: str, **more: Any) -> httpx.Response:
        async def main() -> httpx.Response:
            # A server does not pass on what an application raises after it has answered.
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://walkin") as client:
                return await client.request(method, path, **more)

        return asyncio.run(main())

    return ask


def code(response: httpx.Response) -> str:
    """The code of an answer in the error shape."""
    body = response.json()
    assert {"error", "code", "retryable", "request_id"} <= set(body)
    assert body["request_id"] == response.headers["x-request-id"]
    assert response.headers["content-type"] == "application/json"
    assert response.headers["access-control-allow-origin"] == "*"
    return str(body["code"])


def test_health_is_ok(ask: Ask) -> None:
    response = ask("GET", "/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})
    assert response.headers["content-type"] == "application/json"


def test_the_description_is_the_file_in_the_repository(ask: Ask) -> None:
    response = ask("GET", "/openapi.json")
    assert response.content == (ROOT / "openapi.json").read_bytes()
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", ["/healthz", "/openapi.json"])
def test_what_can_be_got_has_a_head(ask: Ask, path: str) -> None:
    response = ask("HEAD", path)
    assert response.status_code == 200
    assert response.headers["content-length"] == ask("GET", path).headers["content-length"]


@pytest.mark.parametrize("path", PATHS)
def test_a_preflight_is_a_204(ask: Ask, path: str) -> None:
    response = ask("OPTIONS", path, headers={"origin": "https://example.org"})
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["access-control-allow-origin"] == "*"
    assert "X-Walkin-Session" in response.headers["access-control-allow-headers"]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/nope",
        "//sql",
        "/sql/",
        "/healthz/",
        "/openapi.json/",
        "/sql/x",
        "/SQL",
        "/%2e%2e/etc/passwd",
        "/sql%00",
        "/\u00fc",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_an_unknown_path_is_a_404_in_the_error_shape(ask: Ask, method: str, path: str) -> None:
    response = ask(method, path)
    assert response.status_code == 404
    assert code(response) == "path_not_found"


SQL = "GET, HEAD, POST, OPTIONS"


@pytest.mark.parametrize(
    ("path", "method", "allow"),
    [
        *(("/sql", method, SQL) for method in ("PUT", "DELETE", "PATCH")),
        ("/sql.csv", "POST", "GET, HEAD, OPTIONS"),
        ("/tables/t", "PUT", "GET, HEAD, POST, OPTIONS"),
        *(("/healthz", method, "GET, HEAD, OPTIONS") for method in ("POST", "PUT", "DELETE")),
        ("/status", "POST", "GET, HEAD, OPTIONS"),
        ("/openapi.json", "POST", "GET, HEAD, OPTIONS"),
        ("/sql", "INVENTED", SQL),
        ("/s%71l", "PUT", SQL),
        ("/sql?x=1", "PUT", SQL),
    ],
)
def test_another_method_is_a_405_that_says_what_is_allowed(
    ask: Ask, path: str, method: str, allow: str
) -> None:
    response = ask(method, path)
    assert response.status_code == 405
    assert response.headers["allow"] == allow
    assert code(response) == "method_not_allowed"


@pytest.mark.parametrize("host", ["", "a/b", "[", "evil.example", "a b", "\x7f", "x" * 9000])
def test_no_host_header_confuses_it(ask: Ask, host: str) -> None:
    assert ask("PUT", "/sql", headers={"host": host}).status_code == 405
    assert ask("GET", "/nope", headers={"host": host}).status_code == 404


def test_a_fault_of_ours_is_a_500_in_the_error_shape(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: bytes) -> None:
        raise RuntimeError("secret of the house")

    monkeypatch.setattr(bodies, "check", fail)
    response = ask("POST", "/sql", json={"sql": "select 1"})
    assert response.status_code == 500
    assert "secret" not in response.text
    assert code(response) == "internal"
