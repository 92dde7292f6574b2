"""What a database is filled from: a whole file, a script, rows for a table.

Runs in: front desk. All of it goes to the cell as it came; nothing of it is looked at here.
"""

import orjson
from starlette.requests import Request
from starlette.responses import Response

from sandbox.forms import Form, Written
from sandbox.frames import Ask
from walkin import heads
from walkin.cargo import Hold
from walkin.endpoints import Desk
from walkin.errors import Refused
from walkin.heads import Head
from walkin.session import Session, made
from walkin.turn import Wanted

_WRITTEN = {
    "text/csv": Written.CSV,
    "text/tab-separated-values": Written.TSV,
    "application/x-ndjson": Written.NDJSON,
    "application/ndjson": Written.NDJSON,
    "application/jsonl": Written.NDJSON,
    "application/json": Written.JSON,
}
_LONGEST_NAME = 1000
#: What POST /session makes a database from.
_SOURCES = {
    "application/vnd.sqlite3": Ask.LOAD,
    "application/x-sqlite3": Ask.LOAD,
    "application/octet-stream": Ask.LOAD,
    "application/sql": Ask.SCRIPT,
    "text/x-sql": Ask.SCRIPT,
}


class Intake:
    """The coroutines of PUT /database, POST /tables and of POST /session with a body of its own."""

    def __init__(self, desk: Desk, session: Session) -> None:
        self._desk = desk
        self._session = session
        self._hold = Hold()

    async def database(self, request: Request) -> Response:
        """PUT /database: have the database be what a file is."""
        call, head, client = await self._desk.begin(request)
        if head.content_encodings:
            raise Refused("content_type", "and not encoded", hint="leave Content-Encoding out")
        call.instance = self._desk.instance_of(head.tokens)
        async with self._hold.cargo(request, client) as file:
            return await self._desk.run(call, b"", Wanted(Ask.LOAD, attached=file), {})

    async def rows(self, request: Request) -> Response:
        """POST /tables/{name}: put rows into a table, all of them or none."""
        call, head, client = await self._desk.begin(request)
        written = _WRITTEN.get(_media_type(head))
        if written is None:
            raise Refused("content_type", hint=f"or one of {', '.join(_WRITTEN)}")
        codings = [coding.strip().lower() for coding in head.content_encodings]
        if codings not in ([], ["identity"], ["gzip"]):
            raise Refused("content_type", "and encoded as gzip or not at all")
        call.instance = self._desk.instance_of(head.tokens)
        name: str = request.path_params["name"]
        if len(name) > _LONGEST_NAME:
            raise Refused("invalid_option", f"a table's name has at most {_LONGEST_NAME} letters")
        about = {"name": name, "written": written, "gzip": codings == ["gzip"]}
        async with self._hold.cargo(request, client) as body:
            wanted = Wanted(Ask.ROWS, Form.JSON, attached=body)
            return await self._desk.run(call, orjson.dumps(about), wanted, {})

    async def create(self, request: Request) -> Response:
        """POST /session: make a database, and fill it if the body is a file or a script."""
        ask = _SOURCES.get(_media_type(heads.read(request.scope)))
        if ask is None:
            return await self._session.create(request)
        call, _, client = await self._desk.begin(request)
        ttl_s = self._session.lifetime(request.query_params)
        async with self._hold.cargo(request, client) as source:
            told, headers = await self._session.make(call, client, ttl_s)
            filled = await self._desk.run(call, b"", Wanted(ask, attached=source), headers)
        if filled.status_code == 200:  # noqa: PLR2004
            return made(told, headers)
        return filled


def _media_type(head: Head) -> str:
    return ",".join(head.content_types).partition(";")[0].strip().lower()
