"""Names: as SQL has them, as SQLite compares them, as an error tells them.

Runs in: cells. Standard library only. Pure functions.
"""

import math
import re
import time
from collections.abc import Iterable
from difflib import SequenceMatcher

#: The least likeness, from 0 to 1, that is worth a suggestion.
_LEAST = 0.6
#: So many letters of a name are looked at, or told.
_LONGEST = 100
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def quoted(name: str) -> str:
    """Return a name as SQL has it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def folded(name: str) -> bytes:
    """Return a name as SQLite compares names: A to Z are a to z, and no other letters alike."""
    return name.encode(errors="surrogatepass").lower()


def nearest(
    name: str, known: Iterable[str], least: float = _LEAST, until: float = math.inf
) -> list[str]:
    """Return those of the known names that are near to `name`, the nearest first.

    `least` is the likeness that is asked for, from 0 to 1. From `until` on (time.monotonic()) the
    rest is left out.
    """
    wanted = _words(name[:_LONGEST])
    liked = []
    for one in known:
        if time.monotonic() > until:
            break
        liked.append((_likeness(wanted, _words(one[:_LONGEST])), one))
    liked.sort(key=lambda pair: (-pair[0], pair[1]))
    return [one for likeness, one in liked if likeness >= least]


def short(name: str) -> str:
    """Return a name, or as much of it as is told."""
    return name if len(name) <= _LONGEST else name[:_LONGEST] + "…"


def _words(name: str) -> list[str]:
    """Return a name's words, in lower case and in the singular: `userNames` is user, name."""
    parts = re.split(r"[\W_]+", _HUMP.sub("_", name))
    return [_singular(part.lower()) for part in parts if part] or [name.lower()]


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:  # noqa: PLR2004 - not "lies"
        return word[:-3] + "y"
    if word.endswith(("ses", "xes", "ches", "shes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 2 else word  # noqa: PLR2004


def _likeness(wanted: list[str], other: list[str]) -> float:
    first, second = "".join(wanted), "".join(other)
    if first == second:
        return 2.0
    matcher = SequenceMatcher(None, first, second, autojunk=False)
    if matcher.real_quick_ratio() < _LEAST / 2 or matcher.quick_ratio() < _LEAST / 2:
        return 0.0
    likeness = matcher.ratio()
    shorter, longer = sorted((first, second), key=len)
    if len(shorter) > 1 and (longer.startswith(shorter) or set(wanted) & set(other)):
        # One is the beginning of the other, or they share a word.
        likeness = max(likeness, _LEAST) + 0.1
    elif len(shorter) > 2 and shorter in longer:  # noqa: PLR2004 - two letters are in everything
        likeness = max(likeness, _LEAST)
    return likeness
