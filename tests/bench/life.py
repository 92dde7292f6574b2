"""What only walkin is asked: copies, going back to a kept state, the way in and the way out."""

from collections.abc import Awaitable, Callable
from functools import partial

from tests.bench.alone import own_service
from tests.bench.load import Caller, Figures, closed_loop, http, once
from tests.bench.peers import Walkin
from tests.bench.run import Run
from tests.bench.workloads import WALKIN

_MEGABYTE = 1_000_000
_FILL = "INSERT INTO big SELECT randomblob(100000) FROM json_each('[1,2,3,4,5,6,7,8,9,10]')"
#: A copy is looked at by nobody: it goes soon, so that the disk does not fill.
_COPY = b'{"ttl_s": 5}'


class Holder:
    """Who holds the token of a database of so many megabytes."""

    def __init__(self, walkin: Walkin, megabytes: int) -> None:
        self._walkin = walkin
        self._token = once(partial(self._fill, megabytes))

    async def _fill(self, megabytes: int, caller: Caller) -> str:
        token = await self._walkin.create(caller, "CREATE TABLE big(x BLOB)")
        for _ in range(megabytes):
            await self._walkin.sql(caller, token, _FILL)
        return token

    async def ask(self, caller: Caller, status: int, method: str, path: str, body: bytes) -> bytes:
        """Ask, and return the body of an answer that must be of that status."""
        headers = {"X_Walkin_Session": self._token}
        if method == "PUT":
            headers["Content_Length"] = str(len(body))
        answer = await caller.ask(self._walkin.port, http(method, path, body, **headers))
        assert answer.status == status, answer.short
        return answer.body

    async def fork(self, caller: Caller) -> None:
        await self.ask(caller, 201, "POST", "/session/fork", _COPY)

    async def rewind(self, caller: Caller) -> None:
        """Keep, change, go back: the whole of a trial that is thrown away."""
        await self.ask(caller, 201, "PUT", "/session/checkpoints/trial", b"")
        await self._walkin.sql(caller, self._token, "DELETE FROM big WHERE rowid = 1")
        await self.ask(caller, 200, "POST", "/session/checkpoints/trial/restore", b"{}")
        await self.ask(caller, 204, "DELETE", "/session/checkpoints/trial", b"")

    async def download(self, caller: Caller) -> bytes:
        return await self.ask(caller, 200, "GET", "/database", b"")

    async def upload(self, file: bytes, caller: Caller) -> None:
        await self.ask(caller, 200, "PUT", "/database", file)


def live(run: Run) -> None:
    """Each of these by one caller, one after the other."""
    with own_service() as (_, walkin):
        small, large = Holder(walkin, 1), Holder(walkin, 9)
        half = Holder(walkin, 4)
        file = once(large.download)
        acts: dict[str, Callable[[Caller], Awaitable[object]]] = {
            "fork_1": small.fork,
            "fork_9": large.fork,
            "rewind_1": small.rewind,
            "rewind_4": half.rewind,
            "download": large.download,
            "upload": partial(large.upload, file),
        }
        for _ in range(run.size.rounds):
            for row, act in acts.items():
                moved = len(file) if row in ("download", "upload") else 0
                run.attempt(row, WALKIN, partial(_ask, act, run.size.cold, moved))


def _ask(act: Callable[[Caller], Awaitable[object]], times: int, moved: int) -> Figures:
    figures, fault = closed_loop(act, 1, 60, most=times)
    assert not fault, fault
    return figures | ({"mb_per_s": figures["rate"] * moved / _MEGABYTE} if moved else {})
