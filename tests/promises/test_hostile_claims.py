"""The promise: what a caller claims to be or to own counts for nothing that is not vouched for.

Tokens: only one that was issued opens a database, and every other is answered alike. Addresses:
nobody gets away from his limit by what he writes into X-Forwarded-For.
"""

import base64
import itertools
import string
import time
from collections.abc import Callable, Iterator

import pytest

from sandbox.codes import CODES
from tests.handles import Answer, Client, Service
from tests.wire import Raw, besiege, request
from walkin.settings import Secret
from walkin.tokens import Seal, new_instance_id

KEY, OTHER_KEY = "k" * 40, "o" * 40
ALPHABET = string.ascii_letters + string.digits + "-_"


@pytest.fixture(scope="module")
def besieged() -> Iterator[Service]:
    with besiege(token_keys=KEY) as service:
        yield service


@pytest.fixture(scope="module")
def owner(besieged: Service) -> Client:
    """A caller with a database."""
    client = besieged.client()
    assert client.sql("CREATE TABLE secret(a)").status == 200
    return client


def forged(mine: str, theirs: str) -> dict[str, str]:
    """Everything that might be taken for a token, made of two that were issued."""
    other = Seal((Secret(OTHER_KEY),)).issue(new_instance_id())
    last = next(
        character
        for character in ALPHABET
        if character != mine[-1] and _decoded(mine[:-1] + character) == _decoded(mine)
    )
    spliced_nonce = _encoded(_decoded(mine)[:16] + _decoded(theirs)[16:48] + _decoded(mine)[48:])
    return {
        "nothing": "",
        "the prefix": "wkn_",
        "a word": "nobody",
        "all zeros": "wkn_" + "A" * 107,
        "my database under their MAC": mine[:68] + theirs[68:],
        "their database under my MAC": theirs[:68] + mine[68:],
        "their id before my nonce": _encoded(_decoded(theirs)[:16] + _decoded(mine)[16:]),
        "their nonce behind my id": spliced_nonce,
        "a MAC of zeros": mine[:68] + "A" * 43,
        "another key": other,
        "another key's MAC": mine[:68] + other[68:],
        "another spelling": mine[:-1] + last,
        "padding": mine + "=",
        "two of padding": mine + "==",
        "escaped": mine[:-1] + f"%{ord(mine[-1]):02x}",
        "one more": mine + "A",
        "one less": mine[:-1],
        "twice": mine + mine,
        "a list": f"{mine}, {mine}",
        "a list of two": f"{mine},{theirs}",
        "a scheme": f"Bearer {mine}",
        "quotes": f'"{mine}"',
        "the other prefix": "wkt_" + mine[4:],
        "no prefix": mine[4:],
        "in capitals": mine.upper(),
        "the other case": mine.swapcase(),
        "the other alphabet": "wkn_" + mine[4:].translate(str.maketrans("-_", "+/")) + "+",
        "a space inside": mine[:50] + " " + mine[50:],
        "a tab inside": mine[:50] + "\t" + mine[51:],
        "60 KB": "wkn_" + "A" * 60_000,
        **{
            f"bit {bit} at {at}": _flipped(mine, at, bit)
            for at in (0, 4, 20, 40, 68, 90)
            for bit in (0, 1)
        },
    }


def _flipped(token: str, at: int, bit: int) -> str:
    return token[:at] + chr(ord(token[at]) ^ 1 << bit) + token[at + 1 :]


def _decoded(token: str) -> bytes:
    return base64.urlsafe_b64decode(token[4:] + "=")


def _encoded(raw: bytes) -> str:
    return "wkn_" + base64.urlsafe_b64encode(raw).decode().rstrip("=")


def is_not_found(answer: Answer) -> bool:
    """Whether this is the one answer that all of them get: in all that is not of this request."""
    row = CODES["instance_not_found"]
    body = answer.json
    del body["request_id"]
    assert body == {"error": row.begins, "code": row.name, "retryable": False}
    return answer.status == 404


def test_no_token_but_those_issued_opens_anything(besieged: Service, owner: Client) -> None:
    stranger = besieged.client()
    stranger.sql("SELECT 1")
    assert owner.token
    assert stranger.token
    seen = set()
    for name, token in forged(stranger.token, owner.token).items():
        thief = besieged.client()
        answer = thief.sql("SELECT * FROM secret", X_Walkin_Session=token)
        assert is_not_found(answer), name
        assert thief.token is None
        seen.add(tuple(sorted(name for name in answer.headers if name != "date")))
    assert len(seen) == 1
    assert owner.sql("SELECT * FROM secret").rows == []


@pytest.mark.parametrize("digits", ["\u0661", "\uff11", "\u00b2"])
def test_no_digits_but_those_of_ascii_count(besieged: Service, owner: Client, digits: str) -> None:
    assert owner.token
    caller = Raw(besieged)
    for encoding in ("utf-8", "latin-1"):
        token = (owner.token[:30] + digits + owner.token[31:]).encode(encoding, "replace")
        sent = request(b'{"sql": "SELECT 1"}', "X-Walkin-Session: @").replace(b"@", token)
        caller.send(sent)
        answer = caller.answer()
        assert (answer.status, answer.json["code"]) == (404, "instance_not_found")
    caller.close()


def test_two_session_headers_are_none_even_if_both_are_good(
    besieged: Service, owner: Client
) -> None:
    caller = Raw(besieged)
    for second in (owner.token, "nobody", ""):
        for pair in itertools.permutations(
            (f"X-Walkin-Session: {owner.token}", f"X-Walkin-Session: {second}")
        ):
            caller.send(request(b'{"sql": "SELECT 1"}', *pair))
            assert caller.answer().json["code"] == "instance_not_found"
    caller.close()


def test_space_around_a_token_belongs_to_http_and_not_to_it(
    besieged: Service, owner: Client
) -> None:
    caller = Raw(besieged)
    caller.send(request(b'{"sql": "SELECT 1"}', f"x-wALKIN-session:\t  {owner.token} \t"))
    assert caller.answer().status == 200
    caller.close()


def test_a_good_token_of_a_database_that_never_was_is_404_as_well(besieged: Service) -> None:
    token = Seal((Secret(KEY),)).issue(new_instance_id())
    answer = besieged.client(token).sql("SELECT 1")
    assert (answer.status, answer.json["error"]) == (404, CODES["instance_not_found"].begins)
    assert "x-walkin-session" not in answer.headers


# --- X-Forwarded-For ---


def statuses(caller: Client, chains: list[str]) -> list[int]:
    return [caller.sql("SELECT 1", X_Forwarded_For=chain).status for chain in chains]


FORGED = [
    "{me}",
    "1.1.1.1, {me}",
    "127.0.0.1, 2.2.2.2, {me}",
    "unknown, {me}",
    ",,,,{me}",
    "[::1]:80,\t{me}:4711",
    "3.3.3.3, {me}, 127.0.0.1",
    "3.3.3.3, {me}, ::ffff:127.0.0.1, 127.0.0.1:9",
    "::ffff:{me}",
    "[::ffff:{me}]:1",
]


def test_behind_a_proxy_nobody_escapes_his_limit_by_what_he_writes_before_it(
    make_service: Callable[..., Service],
) -> None:
    service = make_service(requests_per_min=5, trusted_proxies="127.0.0.1")
    proxy = service.client()
    mine = [chain.format(me="203.0.113.9") for chain in FORGED]
    assert statuses(proxy, mine) == [200] * 5 + [429] * 5
    assert statuses(proxy, ["203.0.113.9, 203.0.113.10"]) == [200]
    # All of one /64 are one client, with or without ports and zones.
    network = [f"[2001:db8::{n:x}]:{n}" for n in range(3)] + [
        f"2001:db8::{n:x}%eth0" for n in range(3)
    ]
    assert statuses(proxy, network) == [200] * 5 + [429]
    # What no proxy could have written is the proxy's own.
    garbage = ["", "unknown", "203.0.113.9,", "999.1.1.1", "_", "203.0.113.11 203.0.113.12", "@"]
    assert statuses(proxy, garbage) == [200] * 5 + [429] * 2
    # Several lines are one list, whose right end is in the last of them.
    lines = [("Content-Type", "application/json"), ("X-Forwarded-For", "1.2.3.4")]
    lines += [("X-Forwarded-For", "203.0.113.9")]
    assert proxy.http.post("/sql", content=b'{"sql": "SELECT 1"}', headers=lines).status_code == 429


@pytest.mark.parametrize("trusted", ["", "127.0.0.1"])
def test_a_caller_who_is_no_proxy_is_counted_by_himself(
    make_service: Callable[..., Service], trusted: str
) -> None:
    service = make_service(requests_per_min=5, trusted_proxies=trusted)
    caller = Raw(service, source="127.0.0.9")
    seen = []
    for number in range(10):
        chain = f"X-Forwarded-For: 203.0.113.{number}, 127.0.0.1"
        caller.send(
            request(
                b'{"sql": "SELECT 1"}',
                chain,
                f"X-Real-IP: 9.9.9.{number}",
                f"Forwarded: for=8.8.8.{number}",
            )
        )
        seen.append(caller.answer().status)
    caller.close()
    assert seen == [200] * 5 + [429] * 5


def test_a_chain_of_60_kb_costs_no_more_than_another(make_service: Callable[..., Service]) -> None:
    service = make_service(requests_per_min=30, trusted_proxies="127.0.0.1")
    proxy = service.client()
    proxy.sql("SELECT 1", X_Forwarded_For="203.0.113.1")
    chains = [piece * (60_000 // len(piece)) for piece in (",", "127.0.0.1,", "[", "1:", "%", "a,")]
    for chain in chains:
        began = time.monotonic()
        assert proxy.sql("SELECT 1", X_Forwarded_For=chain + ", 203.0.113.9").status == 200
        assert time.monotonic() - began < 0.5
