"""The default limits, exactly; and whose requests are counted together."""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.handles import Answer, Client, Service

REQUESTS, CREATIONS = 60, 10


@pytest.fixture
def untouched(folder: Path) -> Iterator[Service]:
    """A service whose limits nobody has set."""
    service = Service(folder)
    del service.env["WALKIN_REQUESTS_PER_MIN"], service.env["WALKIN_CREATIONS_PER_MIN"]
    yield service.start()
    assert service.stop() == 0


def is_limited(answer: Answer, code: str, error: str) -> bool:
    return (
        answer.status == 429
        and (answer.code, answer.json["error"]) == (code, error)
        and answer.json["retryable"] is True
        and 1 <= int(answer.headers["retry-after"]) <= 60
        and answer.headers["access-control-allow-origin"] == "*"
        and "x-walkin-session" not in answer.headers
    )


def is_creation_limited(answer: Answer) -> bool:
    return is_limited(answer, "creation_limited", "new-instance rate limit exceeded")


def is_rate_limited(answer: Answer) -> bool:
    return is_limited(answer, "rate_limited", "rate limit exceeded")


def test_10_databases_and_60_requests_pass_by_default(untouched: Service) -> None:
    service = untouched
    clients = [service.client() for _ in range(CREATIONS + 5)]
    answers = [client.sql("SELECT 1") for client in clients]
    assert [answer.status for answer in answers[:CREATIONS]] == [200] * CREATIONS
    assert all(map(is_creation_limited, answers[CREATIONS:]))
    assert len([path for path in service.traces() if "instances" in path.parts]) == CREATIONS

    used = len(clients)
    known = clients[0]
    # A request counts whatever becomes of it; health, schema and preflight cost nothing.
    assert known.post(b"{").status == 400
    assert known.sql("SELECT * FROM nowhere").status == 400
    assert service.client("wkn_forged").sql("SELECT 1").status == 404
    used += 3
    for _ in range(REQUESTS):
        assert known.get("/healthz").status == 200
        assert known.get("/openapi.json").status == 200
        assert known.http.options("/sql").status_code == 204
    for _ in range(REQUESTS - used):
        assert known.sql("SELECT 1").status == 200
    assert all(is_rate_limited(known.sql("SELECT 1")) for _ in range(5))
    assert is_rate_limited(service.client().sql("SELECT 1")), "over another connection too"
    forwarded = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9"}
    assert is_rate_limited(known.sql("SELECT 1", **forwarded)), "nobody vouches for the header"
    assert known.get("/healthz").status == 200


def test_60_of_80_requests_pass_that_come_at_once(untouched: Service) -> None:
    first = untouched.client()
    assert first.sql("SELECT 1").status == 200

    def call(_: int) -> Answer:
        client = Client(untouched.url, first.token)
        answer = client.sql("SELECT 1", Connection="close")
        client.close()
        return answer

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(call, range(79)))
    assert sum(answer.status == 200 for answer in answers) == REQUESTS - 1
    assert sum(map(is_rate_limited, answers)) == 20


def test_trusted_proxys_word_on_the_client_is_taken(make_service: Callable[..., Service]) -> None:
    service = make_service(requests_per_min=2, trusted_proxies="127.0.0.0/8,10.0.0.0/8")
    client = service.client()

    def statuses(forwarded_for: str, times: int = 3) -> list[int]:
        headers = {"X-Forwarded-For": forwarded_for}
        return [client.sql("SELECT 1", **headers).status for _ in range(times)]

    assert statuses("203.0.113.1") == [200, 200, 429]
    assert statuses("203.0.113.2") == [200, 200, 429], "another client"
    assert statuses("198.51.100.7, 203.0.113.1") == [429] * 3, "what the client claims is no proof"
    assert statuses("203.0.113.3, 10.1.2.3") == [200, 200, 429], "a second proxy that is trusted"
    assert statuses("203.0.113.3:4711") == [429] * 3
    assert statuses("2001:db8::1") == [200, 200, 429]
    assert statuses("2001:db8::2") == [429] * 3, "one /64 is one client"
    assert statuses("2001:db8:0:1::1") == [200, 200, 429]
    assert client.sql("SELECT 1").status == 200, "the proxy itself"


def test_proxy_that_is_not_trusted_is_the_client(make_service: Callable[..., Service]) -> None:
    service = make_service(requests_per_min=2, trusted_proxies="192.0.2.1")
    client = service.client()
    statuses = [
        client.sql("SELECT 1", **{"X-Forwarded-For": f"203.0.113.{n}"}).status for n in range(4)
    ]
    assert statuses == [200, 200, 429, 429]


def test_service_on_ipv6(make_service: Callable[..., Service]) -> None:
    service = make_service(host="::1", requests_per_min=4)
    assert service.url.startswith("http://[::1]:")
    client = service.client()
    assert client.sql("CREATE TABLE t(x); INSERT INTO t VALUES (6)").status == 200
    assert client.sql("SELECT x FROM t").rows == [[6]]
    assert [client.sql("SELECT 1").status for _ in range(3)] == [200, 200, 429]


def test_every_answer_of_a_counted_call_says_where_the_caller_stands(
    make_service: Callable[..., Service],
) -> None:
    service = make_service(requests_per_min=6, creations_per_min=1)
    client = service.client()
    made = client.sql("SELECT 1")
    policy = '"calls";q=6;w=60, "creations";q=1;w=60'
    answers = [
        client.sql("SELEC"),
        client.post(b"no json"),
        client.post(b"x" * 9000),
        service.client("wkn_unknown").sql("SELECT 1"),
        service.client().sql("SELECT 1"),
        client.sql("SELECT 1"),
    ]
    assert [answer.status for answer in answers] == [400, 400, 413, 404, 429, 429]
    for answer in (made, *answers):
        assert answer.headers["ratelimit-policy"] == policy
    assert re.fullmatch(r'"calls";r=5;t=\d+, "creations";r=0;t=\d+', made.headers["ratelimit"])
    assert [int(answer.headers["ratelimit"][10]) for answer in answers] == [4, 3, 2, 1, 0, 0]
    assert "creations" in answers[4].headers["ratelimit"]
    assert client.get("/schema").headers["ratelimit-policy"] == policy
    for path in ("/healthz", "/readyz", "/status", "/openapi.json", "/nowhere"):
        assert "ratelimit" not in client.get(path).headers


def test_where_there_are_no_limits_nothing_is_said_of_them(client: Client) -> None:
    assert not {"ratelimit", "ratelimit-policy"} & set(client.sql("SELECT 1").headers)
