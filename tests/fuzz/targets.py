"""What atheris fuzzes, each in its process: `python -m tests.fuzz.targets <name> <folder>`.

The folder is for the corpus; further arguments are libFuzzer's. `planted` is the target `frames`
with a fault that only feedback from its branches leads to: it shows that the harness still finds
what it looks for.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import apsw
import atheris

with atheris.instrument_imports(include=["sandbox.frames", "sandbox.blocklist", "sandbox.tokens"]):
    from sandbox import blocklist, frames, tokens
    from sandbox.errors import FrameError
    from sandbox.frames import HEADER, LIMITS, Decoder, Frame, Kind

#: Processor time for one text of at most 8 KiB. A quadratic scan takes seconds.
_SLOW_S = 1.0


# --- the frame codec ---


@atheris.instrument_func
def _careless(kinds: list[Kind]) -> None:
    fatal = [Kind.END, Kind.STARTED, Kind.CALL]
    if len(kinds) > 2 and kinds[0] == fatal[0] and kinds[1] == fatal[1] and kinds[2] == fatal[2]:
        raise IndexError("planted")


def _stream(data: bytes) -> bytes:
    """Frames, near frames and plain bytes, as the input says."""
    source = atheris.FuzzedDataProvider(data)
    pieces = []
    while source.remaining_bytes():
        form = source.ConsumeIntInRange(0, 7)
        payload = source.ConsumeBytes(source.ConsumeIntInRange(0, 40))
        if form == 0:
            pieces.append(payload)
            continue
        length = source.ConsumeUInt(4) if form == 1 else len(payload)
        pieces.append(HEADER.pack(source.ConsumeIntInRange(0, 6), length) + payload)
    return b"".join(pieces)


def _fed(accepts: frozenset[Kind], pieces: list[bytes]) -> tuple[list[Frame], bool]:
    """All frames of a stream that comes in these pieces, and whether it was refused."""
    longest = HEADER.size + max(LIMITS[kind] for kind in accepts)
    decoder = Decoder(accepts)
    found: list[Frame] = []
    for piece in pieces:
        try:
            found += decoder.feed(piece)
        except FrameError:
            return found, True
        finally:
            assert len(decoder._buffer) <= longest + len(piece)
        assert len(decoder._buffer) < longest
    return found, False


def fuzz_frames(data: bytes) -> None:
    """The first bytes say who reads and where the stream is cut, the rest what is in it."""
    if len(data) < 3:
        return
    accepts = (frames.TO_CELL, frames.FROM_CELL, frozenset(Kind))[data[0] % 3]
    stream = _stream(data[3:])
    first, second = sorted(place % (len(stream) + 1) for place in data[1:3])
    whole, refused = _fed(accepts, [stream])
    cut, cut_refused = _fed(accepts, [stream[:first], stream[first:second], stream[second:]])
    single, single_refused = _fed(accepts, [stream[at : at + 1] for at in range(len(stream))])
    assert refused == cut_refused == single_refused
    assert cut[: len(whole)] == whole
    if not refused:
        assert whole == cut == single
        assert stream.startswith(b"".join(frames.encode(*frame) for frame in whole))
    else:
        # What was whole before the fault comes out, if it came in an earlier piece.
        assert single[: len(cut)] == cut
    for kind, payload in single:
        assert kind in accepts
        assert len(payload) <= LIMITS[kind]
        if kind is Kind.CALL:
            _raises_only_frame_error(frames.decode_call, payload)
        if kind is Kind.END:
            _raises_only_frame_error(frames.decode_end, payload)


def _raises_only_frame_error(decode: Callable[[bytes], object], payload: bytes) -> None:
    try:
        decode(payload)
    except FrameError:
        return


def fuzz_planted(data: bytes) -> None:
    """The same with a reader that cannot bear one order of kinds."""
    fuzz_frames(data)
    found, _ = _fed(frozenset(Kind), [_stream(data[3:])])
    _careless([kind for kind, _ in found])


# --- the blocklist ---

_DANGEROUS = ["load_extension", "readfile", "writefile", "edit", "zipfile", "unzip", "fts5_locale"]


class Oracle:
    """What SQLite's own parser finds in a text; nothing is run."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._connection = apsw.Connection(":memory:")
        for name in _DANGEROUS[1:]:
            self._connection.create_scalar_function(name, lambda *_: None)
        self._connection.execute("CREATE TABLE t(a, edit); CREATE TABLE edit(a)")
        self._connection.set_authorizer(self._authorize)
        self._connection.set_progress_handler(lambda: True, 500)

    def _authorize(self, action: int, first: str | None, second: str | None, *_: str | None) -> int:
        if action in (apsw.SQLITE_ATTACH, apsw.SQLITE_DETACH):
            self._seen.add("attach")
        if action == apsw.SQLITE_FUNCTION and (second or "").lower() in _DANGEROUS:
            self._seen.add((second or "").lower())
            return apsw.SQLITE_DENY
        harmless = (apsw.SQLITE_SELECT, apsw.SQLITE_READ, apsw.SQLITE_FUNCTION)
        return apsw.SQLITE_OK if action in harmless else apsw.SQLITE_DENY

    def uses(self, sql: str) -> set[str]:
        self._seen.clear()
        try:
            for _ in self._connection.execute(sql):
                pass
        except (apsw.Error, ValueError, UnicodeError):
            pass
        return self._seen


_oracle = Oracle()


def _skip(sql: str, at: int) -> int:
    """Where the next token begins, found without the blocklist's own expressions."""
    while at < len(sql):
        if sql[at] == "\ufeff":
            at += 1
        elif sql[at] in " \t\n\f\r":
            # A vertical tab may go on with white space and not begin it.
            at += 1
            while sql[at : at + 1] in tuple(" \t\n\v\f\r"):
                at += 1
        elif sql.startswith("--", at):
            end = sql.find("\n", at)
            at = len(sql) if end < 0 else end
        elif sql.startswith("/*", at):
            end = sql.find("*/", at + 2)
            at = len(sql) if end < 0 else end + 2
        else:
            break
    return at


def fuzz_blocklist(data: bytes) -> None:
    """Any text is taken apart without loss, quickly, and as SQLite does it."""
    sql = data.decode(errors="surrogateescape")
    began = time.process_time()
    found = tokens.tokens(sql)
    keyword = blocklist.forbidden(sql)
    word = tokens.first_word(sql)
    blank = tokens.is_blank(sql, 0)
    assert time.process_time() - began < _SLOW_S

    at = _skip(sql, 0)
    for token in found:
        assert token.text
        assert sql.startswith(token.text, at)
        assert isinstance(token.name, str)
        at = _skip(sql, at + len(token.text))
    assert at == len(sql)
    assert blank == all(token.text == ";" for token in found)
    significant = [token for token in found if token.text != ";"]
    first = significant[0] if significant else None
    assert word == (first.text.upper() if first and first.kind == "word" else "")
    if keyword is None and _oracle.uses(sql):
        raise AssertionError(f"SQLite sees {_oracle.uses(sql)} in {sql!r}")


TARGETS = {"frames": fuzz_frames, "blocklist": fuzz_blocklist, "planted": fuzz_planted}

_SQL = [
    b"SELECT load_extension('x'), \"edit\" FROM [t] -- a\n;",
    b"EXPLAIN QUERY PLAN /* b */ ATTACH 'it''s' AS `y`",
    b"WITH edit(a) AS (SELECT 1), unzip(b) AS NOT MATERIALIZED (SELECT 2) SELECT edit (a)",
    b'CREATE VIRTUAL TABLE f USING fts5(a); SELECT * FROM "sqlite_dbpage"',
    b"SELECT 1; \vATTACH 'x' AS y; EXPLAIN \n\v\vDETACH y",
    "\ufeff;; SELECT fts5_locale(é, x'00') /* open".encode(),
]
#: What each corpus begins with.
SEEDS = {"frames": [bytes(64)], "blocklist": _SQL, "planted": [bytes(64)]}

if __name__ == "__main__":
    name, folder = sys.argv[1], Path(sys.argv[2])
    for number, text in enumerate(SEEDS[name]):
        (folder / str(number)).write_bytes(text)
    if name == "blocklist":
        atheris.enabled_hooks.add("RegEx")
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[name])
    atheris.Fuzz()
