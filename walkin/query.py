"""GET /sql: reading by URL, for links, spreadsheets and whoever can only GET.

Runs in: front desk.
"""

from typing import Any

import orjson
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from sandbox.forms import Form
from sandbox.frames import Ask
from walkin import bodies, negotiation
from walkin.endpoints import Desk
from walkin.errors import Refused
from walkin.tokens import PREFIX
from walkin.turn import Wanted

#: What a path may end in instead of an `Accept`.
SUFFIXES = {"json": Form.JSON, "csv": Form.CSV, "ndjson": Form.NDJSON, "md": Form.MARKDOWN}
_TOKEN = "token"  # noqa: S105 - the name of a parameter
#: Parameters that are text as they stand; the others are JSON.
_TEXTS = ("sql", "rows", "integers")
#: All that a call may read and nothing that it may write.
_EVERYTHING = b"[]"


class Query:
    """The coroutine of GET /sql, beside those of the desk."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def read(self, request: Request) -> Response:
        """GET /sql: what a body of POST /sql says, as parameters; it only reads."""
        call, head, _ = await self._desk.begin(request)
        suffix = request.path_params.get("form")
        if suffix is None:
            form = negotiation.choose(head.accept)
        elif suffix in SUFFIXES:
            form = SUFFIXES[suffix]
        else:
            names = ", ".join(f"/sql.{name}" for name in SUFFIXES)
            raise Refused("not_acceptable", hint=f"there are {names}")
        said, tokens = _parse(request.query_params)
        body = orjson.dumps(said)
        if len(body) > bodies.MAX_BODY_BYTES:
            raise Refused("body_too_large", f"at most {bodies.MAX_BODY_BYTES} bytes, as JSON")
        bodies.check(body, form)
        wanted = Wanted(Ask.SQL, form, reach=_EVERYTHING)
        wanted = self._desk.admit(call, head.tokens + tokens, wanted)
        return await self._desk.run(call, body, wanted, {})


def _parse(parameters: QueryParams) -> tuple[dict[str, Any], list[str]]:
    """Return the call that the parameters are, and the tokens among them. Raises Refused."""
    said: dict[str, Any] = {}
    tokens: list[str] = []
    for name, value in parameters.multi_items():
        if name == _TOKEN:
            if value.startswith(PREFIX):
                hint = "POST /session/tokens makes one for reading"
                raise Refused("token_in_url", "it would be seen by others", hint=hint)
            tokens.append(value)
        elif name in said:
            raise Refused("invalid_option", f"`{name[:64]}` is there twice", option=name[:64])
        elif name in _TEXTS:
            said[name] = value
        else:
            try:
                said[name] = orjson.loads(value)
            except orjson.JSONDecodeError:
                said[name] = value  # who checks the body says what it must be
    return said, tokens
