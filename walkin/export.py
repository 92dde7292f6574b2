"""What a database has, on its way out: a table's rows, the whole file, or the SQL that makes it.

Runs in: front desk. The cell reads the file; it is passed on as it comes.
"""

from starlette.requests import Request
from starlette.responses import Response

from sandbox.forms import FOR_ROWS, Form
from sandbox.frames import Ask
from walkin import negotiation
from walkin.endpoints import Desk
from walkin.errors import Refused
from walkin.heads import Head
from walkin.turn import Wanted

#: A name that is cut here is no table's: more than a call may be.
_LONGEST_NAME = 60_000
_FILE = Wanted(Ask.FILE, Form.FILE)
_SCRIPT = Wanted(Ask.DUMP, Form.SQL)


class Export:
    """The coroutines of /tables and /database, beside those of the desk."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def table(self, request: Request) -> Response:
        """GET /tables/{name}: the rows of a table or view, in the form that `Accept` names."""
        call, head, _ = await self._desk.begin(request)
        form = negotiation.choose(head.accept, offered=FOR_ROWS)
        wanted = self._desk.admit(call, head.tokens, Wanted(Ask.TABLE, form))
        name: str = request.path_params["name"]
        return await self._desk.run(call, name.encode()[:_LONGEST_NAME], wanted, {})

    async def dump(self, request: Request) -> Response:
        """GET /dump.sql: the database as the SQL that makes it again."""
        call, head, _ = await self._desk.begin(request)
        self._require_all(head)
        wanted = self._desk.admit(call, head.tokens, _SCRIPT)
        return await self._desk.run(call, b"", wanted, {})

    def _require_all(self, head: Head) -> None:
        if self._desk.grant_of(head.tokens).tables:
            raise Refused("token_too_narrow", "it is for some tables, and this is all of them")

    async def database(self, request: Request) -> Response:
        """GET /database: the database as a file that SQLite opens."""
        call, head, _ = await self._desk.begin(request)
        self._require_all(head)
        wanted = self._desk.admit(call, head.tokens, _FILE)
        return await self._desk.run(call, b"", wanted, {}, head.known)
