"""The assembly: routes, error handlers, envelope. No logic.

Runs in: front desk.
"""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from sandbox.client import AsyncClient
from sandbox.notify import Notifier
from sandbox.place import Place
from walkin import keys, paths
from walkin.bodies import ClientDisconnect
from walkin.checkpoints import Checkpoints
from walkin.crowd import Crowd
from walkin.endpoints import Desk
from walkin.envelope import Envelope
from walkin.errors import Refused
from walkin.export import Export
from walkin.intake import Intake
from walkin.ledger import CALL, Ledger
from walkin.metrics import Metrics, SideDoor
from walkin.query import Query
from walkin.reply import Reply, refusal
from walkin.session import Session
from walkin.settings import Settings
from walkin.shelf import Shelf
from walkin.status import Status
from walkin.switchboard import Switchboard
from walkin.throttle import Throttle
from walkin.tokens import Seal

log = logging.getLogger("walkin.front")

#: What an endpoint is.
Act = Callable[[Request], Awaitable[Response]]

#: A dead zygote is back within this time; until then calls wait.
_ZYGOTE_PATIENCE_S = 3.0
_TICK_S = 1.0


def build(
    settings: Settings,
    seal: Seal,
    ledger: Ledger,
    crowd: Crowd,
    metrics_port: int = 0,
) -> ASGIApp:
    """Return the ASGI application; what comes in by `metrics_port` gets the metrics alone."""
    zygote = AsyncClient(Place(settings.data_dir).run, _ZYGOTE_PATIENCE_S)
    switchboard = Switchboard(zygote, settings)
    status = Status(zygote)
    throttle = Throttle(settings)
    desk = Desk(settings, seal, throttle, switchboard, status, ledger)
    session = Session(desk, settings)
    checkpoints = Checkpoints(desk, session, Shelf(switchboard, zygote, settings))
    export = Export(desk)
    query = Query(desk)
    intake = Intake(desk, session)
    operations: dict[str, dict[str, Act]] = {
        "/sql": {"GET": query.read, "POST": desk.run_sql},
        "/sql.{form}": {"GET": query.read},
        "/schema": {"GET": desk.schema},
        "/session": {
            "GET": session.see,
            "POST": intake.create,
            "PATCH": session.change,
            "DELETE": session.end,
        },
        "/session/fork": {"POST": session.fork},
        "/session/tokens": {"POST": session.narrow},
        "/session/checkpoints": {"GET": checkpoints.see},
        "/session/checkpoints/{name}/restore": {"POST": checkpoints.restore},
        "/session/checkpoints/{name}": {"PUT": checkpoints.keep, "DELETE": checkpoints.drop},
        "/database": {"GET": export.database, "PUT": intake.database},
        "/dump.sql": {"GET": export.dump},
        "/tables/{name}": {"GET": export.table, "POST": intake.rows},
        "/healthz": {"GET": desk.health},
        "/readyz": {"GET": desk.ready},
        "/status": {"GET": desk.status},
        "/openapi.json": {"GET": desk.openapi},
    }
    acts = {
        (path, method): act
        for path, methods in operations.items()
        for method, act in methods.items()
    }
    acts |= {(path, "OPTIONS"): desk.preflight for path in operations}
    routes = [_route(path, method, act) for (path, method), act in acts.items()]

    async def answer_refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)  # noqa: S101 - registered for it alone
        return _refuse(error, request)

    async def answer_routing(request: Request, error: Exception) -> Response:
        path = request.url.path
        if isinstance(error, HTTPException) and error.status_code == 405:  # noqa: PLR2004
            methods = [*operations[paths.named(path, operations)], "OPTIONS"]
            if "GET" in methods:
                methods.insert(1, "HEAD")
            refused = Refused("method_not_allowed", headers={"Allow": ", ".join(methods)})
        else:
            refused = Refused("path_not_found", hint="POST /sql; see GET /openapi.json")
        return _refuse(refused, request)

    async def answer_fault(request: Request, _: Exception) -> Response:
        return _refuse(Refused("internal"), request)

    async def answer_nobody(_: Request, __: Exception) -> Response:
        return Response(status_code=400)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        notifier = Notifier(os.environ)
        ticking = asyncio.create_task(_tick(switchboard, notifier))
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, _change_keys, seal, settings)
        notifier.ready()
        yield
        notifier.stopping()
        ticking.cancel()
        switchboard.close()
        ledger.flush()

    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={
            Refused: answer_refused,
            HTTPException: answer_routing,
            ClientDisconnect: answer_nobody,
            Exception: answer_fault,
        },
    )
    # A path is known or it is not: nobody is sent from /sql/ to /sql.
    app.router.redirect_slashes = False
    front = Envelope(_Straight(app, acts), ledger, frozenset(operations), throttle.policy)
    if not metrics_port:
        return front
    metrics = Metrics(ledger, crowd, switchboard, status, settings.data_dir)
    return SideDoor(front, metrics, metrics_port)


def _route(path: str, method: str, act: Act) -> Route:
    route = Route(path, act, methods=[method])
    route.path_regex = paths.pattern(path)
    return route


def _refuse(refused: Refused, request: Request) -> Reply:
    call = request.scope[CALL]
    call.code = refused.row.name
    return refusal(refused, call.request_id.hex())


class _Straight:
    """The way of a known method on a known path: to its endpoint, past the routing of `app`.

    Middleware and router would take an eighth of a call's time to find the same. What they are
    for has its place elsewhere: faults end in the envelope.
    """

    def __init__(self, app: ASGIApp, acts: dict[tuple[str, str], Act]) -> None:
        self._app = app
        self._acts = acts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        act = self._acts.get((scope["path"], scope["method"])) if "method" in scope else None
        if act is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive, send)
        try:
            response = await act(request)
        except Refused as refused:
            response = _refuse(refused, request)
        await response(scope, receive, send)


def _change_keys(seal: Seal, settings: Settings) -> None:
    """Read the keys' file again; one that cannot be read leaves the keys as they are."""
    try:
        found = keys.load(settings)
    except keys.KeysError as cause:
        log.error("the token keys stay as they are: %s", cause)
        return
    seal.change_keys(found)
    log.info("%d token keys are in use", len(found))


async def _tick(switchboard: Switchboard, notifier: Notifier) -> None:
    """Once a second: tell the zygote what was used; stop when whoever started us is gone."""
    parent = os.getppid()
    while True:
        notifier.alive()
        await asyncio.sleep(_TICK_S)
        switchboard.tell_used()
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)
