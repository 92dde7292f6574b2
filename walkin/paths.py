"""The paths that have a part of the caller's in them, and the names they go by.

Runs in: front desk. A table's name in a path is nobody's business: it is in no log and no count.
"""

from collections.abc import Container

#: By what such a path begins with.
TEMPLATES = {"/tables/": "/tables/{name}", "/sql.": "/sql.{form}"}


def named(path: str, known: Container[str]) -> str:
    """Return the name that a path goes by: itself, if it is known, a template or "other"."""
    if path in known:
        return path
    for beginning, template in TEMPLATES.items():
        if path.startswith(beginning):
            return template
    return "other"
