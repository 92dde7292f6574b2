"""The label: the fields of a request's head that a call may bring, read in one go.

Runs in: front desk. Pure functions.
"""

import re
from typing import NamedTuple

from starlette.types import Scope

from walkin.errors import Refused

_JSON = "application/json"
_KEY = re.compile(r"[\x20-\x7e]{1,255}")


class Head(NamedTuple):
    """What was said under each name, in the order of the lines."""

    content_types: list[str]
    content_encodings: list[str]
    tokens: list[str]
    forwarded_for: list[str]
    accept: list[str]
    keys: list[str]
    known: list[str]


_PLACES = {
    b"content-type": 0,
    b"content-encoding": 1,
    b"x-walkin-session": 2,
    b"x-forwarded-for": 3,
    b"accept": 4,
    b"idempotency-key": 5,
    b"if-none-match": 6,
}


def read(scope: Scope) -> Head:
    """Return what a request's head says of a call (ASGI: names are in lower case)."""
    head = Head([], [], [], [], [], [], [])
    for name, value in scope["headers"]:
        place = _PLACES.get(name)
        if place is not None:
            head[place].append(value.decode("latin-1"))
    return head


def check_type(head: Head) -> None:
    """Raise Refused (415) unless the body is said to be JSON, once, and not encoded."""
    if any(coding.strip().lower() != "identity" for coding in head.content_encodings):
        raise Refused("content_type", "and not encoded", hint="send it without Content-Encoding")
    if len(head.content_types) > 1:
        raise Refused("content_type", "and named once")
    media_type = head.content_types[0].partition(";")[0] if head.content_types else ""
    if media_type.strip().lower() != _JSON:
        raise Refused("content_type")


def key(head: Head) -> bytes:
    """Return the Idempotency-Key, empty if there is none. Raises Refused for one that is none."""
    if not head.keys:
        return b""
    text = head.keys[0].strip()
    if len(text) > 1 and text[0] == text[-1] == '"':  # a string of RFC 9651, or just the text
        text = text[1:-1]
    if len(head.keys) > 1 or not _KEY.fullmatch(text):
        raise Refused("invalid_option", "`Idempotency-Key` is 1 to 255 printable ASCII characters")
    return text.encode()
