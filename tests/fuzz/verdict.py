"""What no answer and no line of the log may be, whatever was sent."""

import collections
import json
import re

from jsonschema import Draft202012Validator

from sandbox.codes import CODES
from tests.handles import ROOT, Answer

_SCHEMAS = json.loads((ROOT / "openapi.json").read_text())["components"]
_STATUSES = {(row.status, row.name) for row in CODES.values()} - {
    (500, "internal"),
    (500, "cell_lost"),
}


def shape(name: str) -> Draft202012Validator:
    """A validator of one of openapi.json's schemas."""
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": _SCHEMAS})


_RESULT, _ERROR = shape("Result"), shape("Error")


def check(answer: Answer) -> None:
    """The answer is one that openapi.json knows, and no fault of ours."""
    if answer.status == 200:
        # Ten thousand rows would take the validator longer than SQLite.
        body = answer.json
        body["rows"] = body.get("rows", [])[:20]
        body.setdefault("columns", [])
        _RESULT.validate(body)
    else:
        _ERROR.validate(answer.json)
        assert (answer.status, answer.code) in _STATUSES
        assert answer.json["request_id"] == answer.headers["x-request-id"]


def deaths(log: str) -> list[tuple[str, str]]:
    """Every cell that ended by itself, as the zygote logs it: (instance, how)."""
    return re.findall(r"cell \d+ of (\w+|no database) (died of \w+|failed)", log)


def refused(log: str) -> collections.Counter[str]:
    """How many calls of each instance the front desk answered with 408, 500 or 503."""
    return collections.Counter(re.findall(r"walkin\.front: .* instance=(\w+)$", log, re.MULTILINE))


def faults(log: str) -> list[str]:
    """What the log has of cells that ended without cause or answer, and of our own faults."""
    ends, answered = deaths(log), refused(log)
    found = [f"{instance} {how}" for instance, how in ends if how != "died of SIGALRM"]
    for instance, count in collections.Counter(instance for instance, _ in ends).items():
        if count > answered[instance]:
            found.append(f"{instance} ended {count} times, {answered[instance]} answers of it")
    # Beside its end there is nothing to say of a cell but what went wrong in it.
    found += re.findall(r"^.*walkin\.zygote: cell \d+ of \w+: .*$", log, re.MULTILINE)
    found += re.findall(r"^.*Traceback.*$", log, re.MULTILINE)
    return found
