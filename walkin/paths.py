"""The paths that have a part of the caller's in them, and the names they go by.

Runs in: front desk. Such a name is nobody's business: it is in no log and no count.
"""

from collections.abc import Container

#: With what such a path begins and ends; the first that fits is it.
TEMPLATES = {
    "/tables/{name}": ("/tables/", ""),
    "/sql.{form}": ("/sql.", ""),
    "/session/checkpoints/{name}/restore": ("/session/checkpoints/", "/restore"),
    "/session/checkpoints/{name}": ("/session/checkpoints/", ""),
}


def named(path: str, known: Container[str]) -> str:
    """Return the name that a path goes by: itself, if it is known, a template or "other"."""
    if path in known:
        return path
    for template, (beginning, end) in TEMPLATES.items():
        has_name = len(path) > len(beginning) + len(end)
        if has_name and path.startswith(beginning) and path.endswith(end):
            return template
    return "other"
