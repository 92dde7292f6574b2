"""Frames: what is encoded comes back, whatever the cutting; nothing else gets in."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sandbox import frames
from sandbox.errors import FrameError
from sandbox.forms import Form
from sandbox.frames import HEADER, LIMITS, Ask, Decoder, Frame, Kind

EVERYTHING = frozenset(Kind)
LONGEST = HEADER.size + max(LIMITS.values())


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    """Return the stream in pieces, cut at these places (taken modulo its length)."""
    at = sorted({place % (len(stream) + 1) for place in places})
    return [stream[a:b] for a, b in zip([0, *at], [*at, len(stream)], strict=True)]


cuts = st.lists(st.integers(0, 1 << 20), max_size=8)


@st.composite
def framed(draw: st.DrawFn) -> Frame:
    kind = draw(st.sampled_from(Kind))
    return kind, draw(st.binary(max_size=min(LIMITS[kind], 40)))


#: Bytes that look enough like frames to get past the first look.
@st.composite
def nearly_frames(draw: st.DrawFn) -> bytes:
    kind = draw(st.integers(0, 7) | st.integers(0, 255))
    length = draw(st.integers(0, 40) | st.integers(0, 0xFFFF_FFFF))
    return HEADER.pack(kind, length) + draw(st.binary(max_size=40))


streams = st.lists(nearly_frames() | st.binary(max_size=30), max_size=6).map(b"".join)
accepted = st.sampled_from([frames.TO_CELL, frames.FROM_CELL, EVERYTHING, frozenset[Kind]()])


@given(stream=streams, places=cuts, accepts=accepted)
@example(stream=HEADER.pack(Kind.CALL, 0xFFFF_FFFF), places=[], accepts=frames.TO_CELL)
def test_any_bytes_in_any_pieces_raise_nothing_but_frame_error(
    stream: bytes, places: list[int], accepts: frozenset[Kind]
) -> None:
    decoder = Decoder(accepts)
    try:
        for piece in cut(stream, places):
            for kind, payload in decoder.feed(piece):
                assert kind in accepts
                assert len(payload) <= LIMITS[kind]
    except FrameError:
        pass


@given(stream=streams, places=cuts, accepts=accepted)
def test_the_buffer_never_holds_more_than_one_frame_and_the_piece_fed(
    stream: bytes, places: list[int], accepts: frozenset[Kind]
) -> None:
    longest = HEADER.size + max((LIMITS[kind] for kind in accepts), default=0)
    decoder = Decoder(accepts)
    try:
        for piece in cut(stream, places):
            try:
                list(decoder.feed(piece))
            finally:
                assert len(decoder._buffer) <= longest + len(piece)
    except FrameError:
        pass


def test_an_endless_frame_is_buffered_no_further_than_its_own_length() -> None:
    decoder = Decoder(frames.FROM_CELL)
    list(decoder.feed(HEADER.pack(Kind.DATA, LIMITS[Kind.DATA])))
    piece = bytes(65_521)
    for _ in range(40):
        list(decoder.feed(piece)) if len(decoder._buffer) + len(piece) < LONGEST else None
        assert len(decoder._buffer) <= LONGEST + len(piece)
    with pytest.raises(FrameError):
        list(decoder.feed(bytes(LONGEST)))


@given(sent=st.lists(framed(), max_size=8), places=cuts)
def test_every_sequence_of_frames_comes_back_whatever_the_cutting(
    sent: list[Frame], places: list[int]
) -> None:
    decoder = Decoder(EVERYTHING)
    stream = b"".join(frames.encode(kind, payload) for kind, payload in sent)
    received = [frame for piece in cut(stream, places) for frame in decoder.feed(piece)]
    assert received == sent
    assert len(decoder._buffer) == 0


def test_frames_arrive_as_soon_as_their_last_byte_does() -> None:
    decoder = Decoder(EVERYTHING)
    stream = frames.encode(Kind.DATA, b"abc") + frames.encode(Kind.RETIRED)
    arrivals = [len(list(decoder.feed(bytes([byte])))) for byte in stream]
    assert [at for at, count in enumerate(arrivals) if count] == [7, 12]


@pytest.mark.parametrize("kind", Kind)
def test_a_length_over_the_limit_is_refused_as_soon_as_the_header_is_there(kind: Kind) -> None:
    header = HEADER.pack(kind, LIMITS[kind] + 1)
    decoder = Decoder(EVERYTHING)
    assert list(decoder.feed(header[:-1])) == []
    with pytest.raises(FrameError, match=f"{kind.name} frame announces {LIMITS[kind] + 1} bytes"):
        list(decoder.feed(header[-1:]))


@pytest.mark.parametrize("kind", Kind)
def test_a_frame_of_exactly_its_limit_is_accepted(kind: Kind) -> None:
    payload = bytes(LIMITS[kind])
    assert list(Decoder(EVERYTHING).feed(frames.encode(kind, payload))) == [(kind, payload)]


@pytest.mark.parametrize("kind", Kind)
def test_encode_refuses_a_payload_over_its_limit(kind: Kind) -> None:
    with pytest.raises(FrameError, match=kind.name):
        frames.encode(kind, bytes(LIMITS[kind] + 1))


@pytest.mark.parametrize("kind", frames.FROM_CELL)
def test_a_cell_takes_no_frame_that_only_cells_send(kind: Kind) -> None:
    with pytest.raises(FrameError, match="not accepted here"):
        list(Decoder(frames.TO_CELL).feed(frames.encode(kind, bytes(LIMITS[kind]))))


def test_a_front_desk_takes_no_calls() -> None:
    with pytest.raises(FrameError, match="not accepted here"):
        list(Decoder(frames.FROM_CELL).feed(frames.encode(Kind.CALL, b"")))


@pytest.mark.parametrize("number", [0, 8, 99, 255])
def test_an_unknown_kind_is_refused(number: int) -> None:
    with pytest.raises(FrameError, match=f"frame kind {number} "):
        list(Decoder(EVERYTHING).feed(HEADER.pack(number, 0)))


def test_both_directions_together_know_every_kind_and_share_none() -> None:
    assert frames.TO_CELL | frames.FROM_CELL == EVERYTHING
    assert not frames.TO_CELL & frames.FROM_CELL


@given(
    timeout_ms=st.integers(0, (1 << 32) - 1),
    request=st.binary(min_size=16, max_size=16),
    body=st.binary(max_size=100),
    announce=st.booleans(),
    ask=st.sampled_from(Ask),
    form=st.sampled_from(Form),
    key=st.binary(max_size=255),
    reach=st.binary(max_size=2000),
)
def test_a_call_carries_what_is_asked(
    timeout_ms: int,
    request: bytes,
    body: bytes,
    announce: bool,
    ask: Ask,
    form: Form,
    key: bytes,
    reach: bytes,
) -> None:
    frame = frames.encode_call(
        timeout_ms, request, body, announce=announce, ask=ask, form=form, key=key, reach=reach
    )
    ((kind, payload),) = Decoder(frames.TO_CELL).feed(frame)
    assert kind is Kind.CALL
    asked = (timeout_ms, announce, False, ask, form, request, key, reach, body)
    assert frames.decode_call(payload) == asked


@given(attached=st.binary(max_size=2 * frames.PIECE_BYTES))
@settings(max_examples=20, deadline=None)
def test_what_is_attached_comes_in_pieces_and_an_end(attached: bytes) -> None:
    frame = frames.encode_call(1, bytes(16), b"{}", announce=False, attached=attached)
    (_, payload), *pieces, end = Decoder(frames.TO_CELL).feed(frame)
    assert frames.decode_call(payload).attached
    assert {kind for kind, _ in pieces} <= {Kind.BODY}
    assert b"".join(piece for _, piece in pieces) == attached
    assert end == (Kind.BODY, b"")


@pytest.mark.parametrize(
    ("ask", "form", "key", "reach"), [(9, 0, 0, 0), (0, 9, 0, 0), (0, 0, 4, 0), (0, 0, 1, 3)]
)
def test_a_call_that_asks_for_nothing_known_is_an_error(
    ask: int, form: int, key: int, reach: int
) -> None:
    payload = frames.CALL_HEAD.pack(1, 0, ask, form, bytes(16), key, reach) + b"key"
    with pytest.raises(FrameError):
        frames.decode_call(payload)


@given(
    status=st.integers(0, 0xFFFF),
    marks=st.integers(0, 0xFF),
    took_us=st.integers(0, 1 << 40),
    body=st.binary(max_size=100),
)
def test_an_end_carries_status_marks_and_time(
    status: int, marks: int, took_us: int, body: bytes
) -> None:
    frame = frames.encode_answer(status, body, marks, took_us)
    ((_, payload),) = Decoder(frames.FROM_CELL).feed(frame)
    ended = frames.decode_end(payload)
    assert ended == (status, marks, min(took_us, (1 << 32) - 1), body)


@given(body=st.binary(max_size=3 * frames.PIECE_BYTES // 2))
def test_a_piece_that_goes_on_is_data_alone(body: bytes) -> None:
    found = list(Decoder(frames.FROM_CELL).feed(frames.encode_data(body)))
    assert all(kind is Kind.DATA for kind, _ in found)
    assert b"".join(payload for _, payload in found) == body


def test_a_call_with_a_body_over_64_kib_is_not_encoded() -> None:
    with pytest.raises(FrameError):
        frames.encode_call(1, bytes(16), bytes(65_537), announce=False)


@pytest.mark.parametrize("size", [0, 1, 262_143, 262_144, 262_145, 524_288, 700_000])
def test_an_answer_of_any_size_comes_back_whole_and_ends_once(size: int) -> None:
    body = (bytes(range(256)) * (size // 256 + 1))[:size]
    *before, end = Decoder(frames.FROM_CELL).feed(frames.encode_answer(507, body))
    assert [kind for kind, _ in before] == [Kind.DATA] * ((size - 1) // 262_144 if size else 0)
    assert end[0] is Kind.END
    status, _, _, last = frames.decode_end(end[1])
    assert status == 507
    assert b"".join(payload for _, payload in before) + last == body


@pytest.mark.parametrize("payload", [b"", b"\x00"])
def test_an_end_without_a_status_is_refused(payload: bytes) -> None:
    with pytest.raises(FrameError, match=f"END frame of {len(payload)} bytes"):
        frames.decode_end(payload)


def test_frames_that_nobody_takes_are_not_made() -> None:
    """A hostile cell can put 50,000 empty frames into one piece; the first may be one too many."""
    coming = Decoder(frames.FROM_CELL).feed(frames.encode(Kind.DATA, b"1") + b"\xff" * 100_000)
    assert next(coming) == (Kind.DATA, b"1")
    with pytest.raises(FrameError):
        next(coming)
