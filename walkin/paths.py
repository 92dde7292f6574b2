"""The paths that have a part of the caller's in them, and the names they go by.

Runs in: front desk. Such a name is nobody's business: it is in no log and no count.
"""

import re
from collections.abc import Container

#: What may stand for the part in braces. The name of a table may have anything in it, a slash or a
#: new line too.
_PARTS = {
    "/tables/{name}": r"[\s\S]*",
    "/sql.{form}": r"[^/]*",
    "/session/checkpoints/{name}/restore": r"[^/]+",
    "/session/checkpoints/{name}": r"[^/]+",
}


def pattern(template: str) -> re.Pattern[str]:
    """Return what matches such a path, its part by its name; for another the path itself."""
    before, _, rest = template.partition("{")
    name, _, after = rest.partition("}")
    if not name:
        return re.compile(re.escape(template) + r"\Z")
    part = f"(?P<{name}>{_PARTS[template]})"
    return re.compile(re.escape(before) + part + re.escape(after) + r"\Z")


_TEMPLATES = {template: pattern(template) for template in _PARTS}


def named(path: str, known: Container[str]) -> str:
    """Return the name that a path goes by: itself, if it is known, a template or "other"."""
    if path in known:
        return path
    for template, matching in _TEMPLATES.items():
        if matching.match(path):
            return template
    return "other"
