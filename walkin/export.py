"""What a database has, on its way out: a table's rows, or the whole file.

Runs in: front desk. The cell reads the file; it is passed on as it comes.
"""

from starlette.requests import Request
from starlette.responses import Response

from sandbox.forms import FOR_ROWS, Form
from sandbox.frames import Ask
from walkin import negotiation
from walkin.endpoints import Desk
from walkin.turn import Wanted

_FILE = Wanted(Ask.FILE, Form.FILE)


class Export:
    """The coroutines of /tables and /database, beside those of the desk."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def table(self, request: Request) -> Response:
        """GET /tables/{name}: the rows of a table or view, in the form that `Accept` names."""
        call, head, _ = await self._desk.begin(request)
        form = negotiation.choose(head.accept, offered=FOR_ROWS)
        call.instance = self._desk.instance_of(head.tokens)
        name: str = request.path_params["name"]
        return await self._desk.run(call, name.encode(), Wanted(Ask.TABLE, form), {})

    async def database(self, request: Request) -> Response:
        """GET /database: the database as a file that SQLite opens."""
        call, head, _ = await self._desk.begin(request)
        call.instance = self._desk.instance_of(head.tokens)
        return await self._desk.run(call, b"", _FILE, {}, head.known)
