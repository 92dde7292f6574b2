"""The ceiling: a Starlette route that reads a body and gives one fixed answer.

Served as walkin is: by uvicorn with uvloop and httptools, in one process, without an access log.
"""

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

#: What walkin answers to `SELECT 1`.
ANSWER = b'{"columns":["1"],"rows":[[1]],"rows_affected":0}'


async def answer(request: Request) -> Response:
    await request.body()
    return Response(ANSWER, media_type="application/json")


app = Starlette(routes=[Route("/sql", answer, methods=["POST"])])

if __name__ == "__main__":
    uvicorn.run(
        app,
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
        lifespan="off",
    )
