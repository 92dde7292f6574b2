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
from walkin.turn import Wanted

#: A longer name, in bytes, is no table's: it would be more than a call may be.
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
        name = request.path_params["name"].encode()
        if len(name) > _LONGEST_NAME:
            raise Refused("unknown_table", "no such table")
        return await self._desk.run(call, name, wanted, {})

    async def dump(self, request: Request) -> Response:
        """GET /dump.sql: the database as the SQL that makes it again."""
        call, head, _ = await self._desk.begin(request)
        wanted = self._desk.admit(call, head.tokens, _SCRIPT, takes_all=True)
        return await self._desk.run(call, b"", wanted, {})

    async def database(self, request: Request) -> Response:
        """GET /database: the database as a file that SQLite opens."""
        call, head, _ = await self._desk.begin(request)
        wanted = self._desk.admit(call, head.tokens, _FILE, takes_all=True)
        return await self._desk.run(call, b"", wanted, {}, head.known)
