"""The forms an answer can have: their numbers on the wire, their media types.

Runs in: front desk and cells; standard library only. An error is JSON whatever was asked for.
"""

from enum import IntEnum


class Form(IntEnum):
    """How the rows of a 200 are written."""

    JSON = 0
    NDJSON = 1
    CSV = 2
    MARKDOWN = 3


#: What `Accept` names and `Content-Type` says. One answer has one form; the first is the default.
MEDIA_TYPES = {
    Form.JSON: "application/json",
    Form.NDJSON: "application/x-ndjson",
    Form.CSV: "text/csv",
    Form.MARKDOWN: "text/markdown",
}
#: Those that are lines, and so may go out while there are more to come.
IN_LINES = (Form.NDJSON, Form.CSV)
