"""The label: what a head says of a call, and what kind of body is taken."""

import pytest

from walkin import heads
from walkin.errors import Refused

JSON = (b"content-type", b"application/json")


def head(*fields: tuple[bytes, bytes]) -> heads.Head:
    return heads.read({"type": "http", "headers": list(fields)})


def code(*fields: tuple[bytes, bytes]) -> str | None:
    """The code that a head is refused with, None if it passes."""
    try:
        heads.check_type(head(*fields))
    except Refused as refused:
        return refused.row.name
    return None


def test_every_line_is_kept_under_its_name_in_its_order() -> None:
    found = head(
        (b"host", b"x"),
        JSON,
        (b"x-forwarded-for", b"192.0.2.1"),
        (b"x-walkin-session", b"one"),
        (b"X-Walkin-Session", b"not in lower case, so not from a server"),
        (b"x-forwarded-for", b"192.0.2.2"),
        (b"x-walkin-session", b"two"),
        (b"content-encoding", b"gzip"),
        (b"accept", b"text/csv"),
        (b"idempotency-key", b"a"),
        (b"if-none-match", b'"tag"'),
    )
    assert found == heads.Head(
        ["application/json"],
        ["gzip"],
        ["one", "two"],
        ["192.0.2.1", "192.0.2.2"],
        ["text/csv"],
        ["a"],
        ['"tag"'],
    )


def test_a_head_without_any_is_empty() -> None:
    assert head() == heads.Head([], [], [], [], [], [], [])


@pytest.mark.parametrize("value", [b"\xff\xfe", b"", b"\x00", "ü".encode()])
def test_any_bytes_are_text(value: bytes) -> None:
    (token,) = head((b"x-walkin-session", value)).tokens
    assert token.encode("latin-1") == value


@pytest.mark.parametrize(
    "value",
    [
        b"application/json",
        b"Application/JSON",
        b" application/json ",
        b"application/json;charset=utf-8",
        b"application/json ; x=y; charset=utf-8",
    ],
)
def test_json_is_json_in_any_case_and_with_parameters(value: bytes) -> None:
    assert code((b"content-type", value)) is None


@pytest.mark.parametrize(
    "value", [b"", b"text/plain", b"application/jsonx", b"json", b"application/json, text/plain"]
)
def test_another_type_is_refused(value: bytes) -> None:
    assert code((b"content-type", value)) == "content_type"


def test_no_type_is_refused() -> None:
    assert code() == "content_type"


def test_a_body_of_two_types_is_of_none() -> None:
    assert code(JSON, JSON) == "content_type"


@pytest.mark.parametrize("coding", [b"gzip", b"br", b"identity, gzip", b"x", b""])
def test_an_encoded_body_is_not_taken_for_a_plain_one(coding: bytes) -> None:
    assert code(JSON, (b"content-encoding", coding)) == "content_type"
    assert code(JSON, (b"content-encoding", b"identity"), (b"content-encoding", coding))


@pytest.mark.parametrize("coding", [b"identity", b" Identity "])
def test_a_body_that_says_it_is_not_encoded_is_plain(coding: bytes) -> None:
    assert code(JSON, (b"content-encoding", coding)) is None


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (b"a", b"a"),
        (b'"a b"', b"a b"),
        (b'"', b'"'),
        (b"8e03978e-40d5-43dd-bc93-6894a57f9324", b"8e03978e-40d5-43dd-bc93-6894a57f9324"),
        (b"x" * 255, b"x" * 255),
    ],
)
def test_a_key_is_a_string_with_or_without_its_quotes(value: bytes, key: bytes) -> None:
    assert heads.key(head((b"idempotency-key", value))) == key


def test_no_key_is_empty() -> None:
    assert heads.key(head()) == b""


@pytest.mark.parametrize(
    "values", [[b""], [b'""'], [b"x" * 256], [b"a\tb"], [b"\xff"], [b"a", b"a"]]
)
def test_what_is_no_key_is_refused(values: list[bytes]) -> None:
    with pytest.raises(Refused, match="Idempotency-Key"):
        heads.key(head(*[(b"idempotency-key", value) for value in values]))
