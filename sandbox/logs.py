"""The log: one line for each event, in one of two forms, that never holds up who writes it.

Runs in: every process; standard library only. A line goes to standard error. If nobody takes what
is written there (a full pipe), lines are kept, and beyond a bound lost and counted: a log that
stands still must not stop the service.

`text` is for eyes, fields behind the message as `name=value`; `json` is for programs, one object a
line with the same fields. Fields are what `extra` of a logging call brings.
"""

import contextlib
import functools
import json
import logging
import os
import select
import stat
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

FORMS = ("text", "json")

_STDERR = 2
#: A pipe that takes anything takes this much in one piece (PIPE_BUF, pipe(7)).
_PIECE_BYTES = 4096
_KEPT_BYTES = 1 << 20
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class Writer:
    """Takes lines, each with its line end, and writes them as fast as they are taken."""

    def __init__(self, fd: int = _STDERR) -> None:
        self._fd = fd
        # A file takes anything at once.
        self._piece_bytes = _KEPT_BYTES if stat.S_ISREG(os.fstat(fd).st_mode) else _PIECE_BYTES
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        #: Lines that nobody took in time.
        self.lost = 0

    def write(self, lines: Iterable[bytes]) -> None:
        """Write lines, or keep them for the next time."""
        for line in lines:
            if self._kept_bytes + len(line) > _KEPT_BYTES:
                self.lost += 1
            else:
                self._kept.append(line)
                self._kept_bytes += len(line)
        self.flush()

    def flush(self) -> None:
        """Write what is kept, as far as it is taken at once."""
        with contextlib.suppress(OSError):  # nobody is there any more
            while self._kept and self._takes_more():
                os.write(self._fd, self._next_piece())

    def _takes_more(self) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return bool(poll.poll(0))

    def _next_piece(self) -> bytes:
        """Return whole lines, so that no other process' come in between."""
        most = self._piece_bytes
        lines = [self._kept.popleft()]
        size = len(lines[0])
        while self._kept and size + len(self._kept[0]) <= most:
            lines.append(self._kept.popleft())
            size += len(lines[-1])
        piece = b"".join(lines)
        if size > most:
            self._kept.appendleft(piece[most:])
            piece = piece[:most]
        self._kept_bytes -= len(piece)
        return piece


class Lines(logging.Handler):
    """Gives a writer the lines of `logging`."""

    def __init__(self, writer: Writer, form: str) -> None:
        super().__init__()
        self._writer = writer
        self._line = _as_json if form == "json" else _as_text

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            fields = {name: value for name, value in vars(record).items() if name not in _STANDARD}
            if record.exc_info:
                fields["exception"] = logging.Formatter().formatException(record.exc_info)
            self._writer.write([self.line(record, fields)])
        except Exception:
            self.handleError(record)

    def line(self, record: logging.LogRecord, fields: dict[str, Any]) -> bytes:
        """Return the line of one record."""
        words = record.levelname, record.name, record.getMessage()
        return self._line(record.created, *words, fields).encode(errors="backslashreplace")

    def flush(self) -> None:
        """Write what is kept."""
        self._writer.flush()


def begin(form: str, level: int) -> Writer:
    """Have everything that is logged from `level` on written in that form; return the writer."""
    writer = Writer()
    logging.basicConfig(handlers=[Lines(writer, form)], level=level)
    return writer


def stamp(seconds: float) -> str:
    """Return a time (Unix) as ISO 8601 in UTC, to the millisecond."""
    whole, thousandths = divmod(int(seconds * 1000), 1000)
    return f"{_stamp_of(whole)}.{thousandths:03d}Z"


#: Lines come many in a second, and a line for each call has to be cheap.
@functools.lru_cache(1)
def _stamp_of(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def _as_json(created: float, level: str, name: str, message: str, fields: dict[str, Any]) -> str:
    head = {"time": stamp(created), "level": level.lower(), "logger": name, "message": message}
    return json.dumps(head | fields, default=str, separators=(",", ":")) + "\n"


def _as_text(created: float, level: str, name: str, message: str, fields: dict[str, Any]) -> str:
    said = "".join(f" {field}={value}" for field, value in fields.items())
    # One line, whatever is in it: what a line end began could pass for a line of ours.
    return f"{stamp(created)} {level} {name}: {' | '.join((message + said).splitlines())}\n"
