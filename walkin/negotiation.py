"""Content negotiation: the form of an answer, from what `Accept` says.

Runs in: front desk. Pure functions; RFC 9110, sections 12.4.2 and 12.5.1.
"""

from functools import lru_cache

from sandbox.forms import FOR_ROWS, MEDIA_TYPES, Form
from walkin.errors import Refused

#: Names that are in use for the same.
_ALSO = {
    Form.NDJSON: ("application/ndjson", "application/jsonl", "application/x-jsonlines"),
    Form.MARKDOWN: ("text/x-markdown",),
}
_LONGEST = 1000


def choose(accept: list[str], *, offered: frozenset[Form] = FOR_ROWS) -> Form:
    """Return the form that the caller likes best, of those offered; JSON if he likes all alike.

    `accept` are the header's lines. Raises Refused (406) if he likes none of them.
    """
    if not accept:
        return Form.JSON
    return _choose(",".join(accept)[:_LONGEST], offered)


@lru_cache(maxsize=256)
def _choose(accept: str, offered: frozenset[Form]) -> Form:
    ranges = [_parse(part) for part in accept.split(",") if part.strip()]
    if not ranges:
        return Form.JSON
    liked = {form: _quality(form, ranges) for form in sorted(offered)}
    best = max(liked, key=lambda form: liked[form])  # the first of those liked alike
    if not liked[best]:
        names = ", ".join(MEDIA_TYPES[form] for form in sorted(offered))
        hint = f"this can be answered as {names}"
        raise Refused("not_acceptable", headers={"Vary": "Accept"}, hint=hint)
    return best


def _parse(part: str) -> tuple[str, float]:
    """Return a media range in lower case, and its quality; one that cannot be read is 0."""
    name, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = 1.0
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                quality = float(parameter[2:])
            except ValueError:
                quality = 0.0
    return name, quality if 0 <= quality <= 1 else 0.0


def _quality(form: Form, ranges: list[tuple[str, float]]) -> float:
    """Return how much a form is liked: by the most specific range that is about it."""
    names = (MEDIA_TYPES[form], *_ALSO.get(form, ()))
    kind = MEDIA_TYPES[form].partition("/")[0] + "/*"
    for wanted in (names, (kind,), ("*/*", "*")):
        found = [quality for name, quality in ranges if name in wanted]
        if found:
            return max(found)
    return 0.0
