"""The ledger: what became of each call, as a line in the log and in the counts of /metrics.

Runs in: front desk. A line says which call on which database, how it ended, how long it took and
how many bytes came and went: no token, no SQL, no value, no path that a caller made up. Lines are
gathered for a tenth of a second and written together.
"""

import asyncio
import time
from bisect import bisect_left
from collections import Counter

from sandbox.logs import Writer, stamp

#: Upper bounds of the counted durations, in seconds.
BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: In a request's scope: its Call is here.
CALL = "walkin.call"
_GATHER_S = 0.1
_GATHER_LINES = 500


class Call:
    """What is known of one request."""

    __slots__ = (
        "began",
        "code",
        "instance",
        "path",
        "received",
        "request_id",
        "sent",
        "standing",
        "status",
        "took_s",
        "waited_s",
    )

    def __init__(self, request_id: bytes, path: str) -> None:
        self.request_id = request_id
        #: A path of the contract, or "other".
        self.path = path
        self.began = time.perf_counter()
        self.instance = b""
        #: 0 as long as nothing was answered.
        self.status = 0
        #: Of a refusal by the front desk: a row of sandbox.codes.
        self.code = ""
        #: Bytes of the body that came, and of the one that went.
        self.received = 0
        self.sent = 0
        #: Of one that a cell has answered: seconds until its turn, and what the cell took.
        self.waited_s = 0.0
        self.took_s = 0.0
        #: What the limits say of its client, one item each.
        self.standing: list[bytes] = []


class Ledger:
    """The calls of one front desk. `writer` is None where no lines are wanted."""

    def __init__(self, writer: Writer | None = None, form: str = "text") -> None:
        self._writer = writer
        self._line = _as_json if form == "json" else _as_text
        self._lines: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        #: Calls by path and status; refusals by code.
        self.calls: Counter[tuple[str, int]] = Counter()
        self.refusals: Counter[str] = Counter()
        self.creations = 0
        #: How many calls took no longer than each of BOUNDS_S and longer than the one before;
        #: the last is for those beyond.
        self.durations = [0] * (len(BOUNDS_S) + 1)
        self.seconds = 0.0
        self.received = 0
        self.sent = 0

    @property
    def lost_lines(self) -> int:
        """Lines of the log that nobody took."""
        return self._writer.lost if self._writer else 0

    def note(self, call: Call) -> None:
        """Enter a call that is over."""
        took_s = time.perf_counter() - call.began
        self.calls[call.path, call.status] += 1
        self.durations[bisect_left(BOUNDS_S, took_s)] += 1
        self.seconds += took_s
        self.received += call.received
        self.sent += call.sent
        if call.code:
            self.refusals[call.code] += 1
        if self._writer is not None:
            line = self._line(stamp(time.time()), call, took_s * 1000)
            self._lines.append(line.encode())
            if len(self._lines) >= _GATHER_LINES:
                self.flush()
            elif self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(_GATHER_S, self.flush)

    def flush(self) -> None:
        """Write the lines that have gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writer is not None:
            lines, self._lines = self._lines, []
            self._writer.write(lines)


def _as_text(at: str, call: Call, took_ms: float) -> str:
    return (
        f"{at} INFO walkin.calls: call request_id={call.request_id.hex()}"
        f" instance={call.instance.hex()} path={call.path} status={call.status} code={call.code}"
        f" ms={took_ms:.3f} received={call.received} sent={call.sent}\n"
    )


def _as_json(at: str, call: Call, took_ms: float) -> str:
    # By hand: nothing in it needs an escape, and the encoder would take as long as the rest.
    return (
        f'{{"time":"{at}","level":"info","logger":"walkin.calls","message":"call",'
        f'"request_id":"{call.request_id.hex()}","instance":"{call.instance.hex()}",'
        f'"path":"{call.path}","status":{call.status},"code":"{call.code}","ms":{took_ms:.3f},'
        f'"received":{call.received},"sent":{call.sent}}}\n'
    )
