"""The seal: only what was issued verifies, in the one spelling it was issued in."""

import base64
import contextlib
import hashlib
import hmac
import itertools
import os
import string
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from itsdangerous import signer

from walkin.settings import Secret
from walkin.tokens import Grant, Seal, TokenInvalid, new_instance_id

ALPHABET = string.ascii_letters + string.digits + "-_"
OLD, NEW, OTHER = (Secret(letter * 40) for letter in "ano")
SEAL = Seal((NEW,))
INSTANCE = new_instance_id()
TOKEN = SEAL.issue(INSTANCE)

positions = st.integers(min_value=0, max_value=len(TOKEN) - 1)


def refused(token: str, seal: Seal = SEAL) -> bool:
    """Whether a token is refused, in the one way there is."""
    try:
        seal.verify(token)
    except TokenInvalid as error:
        return error.args == ()
    return False


def decoded(token: str) -> bytes:
    return base64.urlsafe_b64decode(token.removeprefix("wkn_") + "=")


# --- the layout ---


def test_a_token_is_wkn_and_107_characters_of_base64url() -> None:
    assert TOKEN.startswith("wkn_")
    assert len(TOKEN) == 4 + 107
    assert set(TOKEN) <= set(ALPHABET)


def test_a_token_decodes_to_id_nonce_and_mac() -> None:
    raw = decoded(TOKEN)
    assert len(raw) == 16 + 32 + 32
    assert raw[:16] == INSTANCE


def test_a_token_is_exactly_its_bytes_without_padding() -> None:
    spelled = base64.urlsafe_b64encode(decoded(TOKEN)).decode()
    assert spelled.rstrip("=") == TOKEN.removeprefix("wkn_")


def test_the_mac_is_hmac_sha256_of_the_body_under_a_key_for_this_purpose() -> None:
    purpose_key = hmac.digest(NEW.reveal().encode(), b"walkin.session.full", hashlib.sha256)
    body = TOKEN.removeprefix("wkn_")[:64].encode()
    assert decoded(TOKEN)[48:] == hmac.digest(purpose_key, body, hashlib.sha256)


def test_the_nonce_is_new_every_time() -> None:
    nonces = {decoded(SEAL.issue(INSTANCE))[16:48] for _ in range(100)}
    assert len(nonces) == 100


@given(st.binary(min_size=16, max_size=16))
def test_an_issued_token_gives_its_id_back(instance: bytes) -> None:
    assert SEAL.verify(SEAL.issue(instance)).instance == instance


# --- nothing else verifies ---


def test_no_token_verifies_with_one_character_of_the_alphabet_changed() -> None:
    for at, character in itertools.product(range(len(TOKEN)), ALPHABET):
        altered = TOKEN[:at] + character + TOKEN[at + 1 :]
        assert altered == TOKEN or refused(altered), (at, character)


@given(positions, st.characters())
def test_no_token_verifies_with_one_character_changed_to_any_other(at: int, other: str) -> None:
    assume(other != TOKEN[at])
    assert refused(TOKEN[:at] + other + TOKEN[at + 1 :])


@given(positions, st.integers(min_value=0, max_value=7))
def test_no_token_verifies_with_one_bit_flipped(at: int, bit: int) -> None:
    flipped = chr(ord(TOKEN[at]) ^ 1 << bit)
    assert refused(TOKEN[:at] + flipped + TOKEN[at + 1 :])


def test_no_beginning_or_end_of_a_token_verifies() -> None:
    for at in range(len(TOKEN)):
        assert refused(TOKEN[:at]), at
        assert refused(TOKEN[at + 1 :]), at


@given(positions, st.text(min_size=1, max_size=4))
def test_no_token_verifies_with_something_put_into_it(at: int, more: str) -> None:
    assert refused(TOKEN[:at] + more + TOKEN[at:])


@given(st.text(min_size=1))
def test_no_extended_token_verifies(more: str) -> None:
    assert refused(TOKEN + more)
    assert refused(more + TOKEN)


@pytest.mark.parametrize("padding", ["=", "==", "===", "%3D", "%3d"])
def test_no_padded_token_verifies(padding: str) -> None:
    assert refused(TOKEN + padding)
    assert refused(TOKEN[:68] + padding + TOKEN[68:])
    assert refused(TOKEN[: -len(padding)] + padding)


@pytest.mark.parametrize("space", [" ", "\t", "\n", "\r\n", "\v", "\0", "\u00a0", "\u200b"])
def test_no_token_verifies_with_white_space(space: str) -> None:
    for at in (0, 4, 68, len(TOKEN)):
        assert refused(TOKEN[:at] + space + TOKEN[at:]), at


@pytest.mark.parametrize("prefix", ["WKN_", "Wkn_", "wkN_"])
def test_no_token_verifies_with_its_prefix_in_another_case(prefix: str) -> None:
    assert refused(prefix + TOKEN[4:])


@given(positions)
def test_no_token_verifies_with_a_letter_in_another_case(at: int) -> None:
    assume(TOKEN[at].isalpha())
    assert refused(TOKEN[:at] + TOKEN[at].swapcase() + TOKEN[at + 1 :])


def test_no_token_verifies_in_another_case_altogether() -> None:
    assert refused(TOKEN.upper())
    assert refused(TOKEN.lower())
    assert refused(TOKEN.swapcase())


def test_no_token_verifies_in_the_other_base64_alphabet() -> None:
    # One with both characters that differ between the alphabets.
    token = next(token for token in _tokens() if {"-", "_"} <= set(token[4:]))
    assert refused(token[:4] + token[4:].replace("-", "+").replace("_", "/"))
    assert refused(token[:4] + token[4:].replace("-", "+"))
    assert refused(token[:4] + token[4:].replace("_", "/"))


def _tokens() -> Iterator[str]:
    while True:
        yield SEAL.issue(INSTANCE)


def test_of_the_four_spellings_of_the_last_character_one_verifies() -> None:
    # The last character carries four bits of the MAC and two that say nothing.
    spellings = [TOKEN[:-1] + last for last in ALPHABET]
    alike = [token for token in spellings if decoded(token) == decoded(TOKEN)]
    assert len(alike) == 4
    assert [token for token in alike if not refused(token)] == [TOKEN]


@given(st.binary(min_size=16, max_size=16))
def test_no_body_verifies_with_another_tokens_mac(instance: bytes) -> None:
    other = SEAL.issue(instance)
    assert refused(TOKEN[:68] + other[68:])
    assert refused(other[:68] + TOKEN[68:])


@given(st.integers(min_value=1, max_value=67))
def test_no_two_tokens_spliced_inside_the_body_verify(at: int) -> None:
    other = SEAL.issue(INSTANCE)
    spliced = TOKEN[:at] + other[at:]
    assume(spliced not in (TOKEN, other))
    assert refused(spliced)


@given(st.binary(min_size=80, max_size=80))
def test_no_made_up_bytes_verify(raw: bytes) -> None:
    assert refused("wkn_" + base64.urlsafe_b64encode(raw).decode().rstrip("="))


@given(st.text())
def test_any_text_only_ever_raises_token_invalid(text: str) -> None:
    assert refused(text)
    assert refused("wkn_" + text)


@given(st.text(alphabet=ALPHABET, min_size=107, max_size=107))
def test_any_text_of_the_right_shape_only_ever_raises_token_invalid(text: str) -> None:
    assert refused("wkn_" + text)


def test_a_mac_made_with_the_key_itself_does_not_verify() -> None:
    body = TOKEN.removeprefix("wkn_")[:64].encode()
    mac = hmac.digest(NEW.reveal().encode(), body, hashlib.sha256)
    forged = base64.urlsafe_b64encode(mac).decode().rstrip("=")
    assert refused(TOKEN[:68] + forged)


# --- several keys ---


def test_the_last_key_signs() -> None:
    token = Seal((OLD, NEW)).issue(INSTANCE)
    assert Seal((NEW,)).verify(token).instance == INSTANCE
    assert refused(token, Seal((OLD,)))


@pytest.mark.parametrize("signing", [OLD, NEW, OTHER])
def test_every_key_verifies(signing: Secret) -> None:
    token = Seal((signing,)).issue(INSTANCE)
    assert Seal((OLD, NEW, OTHER)).verify(token).instance == INSTANCE


def test_a_removed_key_no_longer_verifies() -> None:
    token = Seal((OLD,)).issue(INSTANCE)
    assert Seal((OLD, NEW)).verify(token).instance == INSTANCE
    assert refused(token, Seal((NEW,)))


# --- the same work ---


class Counted:
    """The module hmac, with a count of what was asked of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.macs: list[bytes] = []
        self.compared = 0
        monkeypatch.setattr(signer, "hmac", self)

    def new(self, key: bytes, msg: bytes | None = None, digestmod: Any = None) -> Any:
        self.macs.append(key)
        return hmac.new(key, msg, digestmod)

    def compare_digest(self, one: bytes, other: bytes) -> bool:
        assert len(one) == len(other) == 32
        self.compared += 1
        return hmac.compare_digest(one, other)


@pytest.mark.parametrize("keys", [(NEW,), (OLD, OTHER, NEW)])
def test_every_token_of_the_right_shape_costs_the_same_work(
    monkeypatch: pytest.MonkeyPatch, keys: tuple[Secret, ...]
) -> None:
    seal = Seal(keys)
    tokens = [Seal((key,)).issue(INSTANCE) for key in (OLD, OTHER, NEW)]
    mine, other = tokens[-1], seal.issue(new_instance_id())
    tokens += [
        other,
        mine[:68] + other[68:],
        "wkn_" + "A" * 107,
        mine[:-1] + ("A" if mine[-1] != "A" else "E"),
        mine[:-1] + chr(ord(mine[-1]) + 1),
        mine[:68] + ("A" if mine[68] != "A" else "B") + mine[69:],
    ]
    for token in tokens:
        counted = Counted(monkeypatch)
        with contextlib.suppress(TokenInvalid):
            seal.verify(token)
        # One MAC under each key, whichever matched and however near the forgery came.
        assert len(counted.macs) == len(set(counted.macs)) == counted.compared == len(keys)


# --- ids ---


def test_an_id_is_a_version_7_uuid_of_the_rfc_variant() -> None:
    for _ in range(200):
        instance = new_instance_id()
        assert len(instance) == 16
        assert instance[6] >> 4 == 7
        assert instance[8] >> 6 == 0b10


def test_an_id_begins_with_the_milliseconds_of_now() -> None:
    before = time.time_ns() // 1_000_000
    stamp = int.from_bytes(new_instance_id()[:6], "big")
    assert before <= stamp <= time.time_ns() // 1_000_000


def test_ids_sort_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    start = time.time_ns()
    made = []
    for milliseconds in range(0, 100_000, 1_000):
        monkeypatch.setattr(time, "time_ns", lambda now=start + milliseconds * 10**6: now)
        made.append(new_instance_id())
    assert made == sorted(made)


def test_ids_of_the_same_millisecond_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_000)
    assert len({new_instance_id() for _ in range(1000)}) == 1000


def test_every_random_bit_of_an_id_is_random(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "urandom", lambda count: b"\xff" * count)
    ones = new_instance_id()
    monkeypatch.setattr(os, "urandom", bytes)
    zeros = new_instance_id()
    differing = int.from_bytes(ones[6:], "big") ^ int.from_bytes(zeros[6:], "big")
    assert differing.bit_count() == 80 - 4 - 2


# --- narrowed ---

READING = Grant(INSTANCE, ("a", "b"), 1_800_000_000)


@pytest.mark.parametrize("tables", [(), ("a",), ("a", "b"), ("\u00fc \"'\n", "x" * 900)])
def test_a_narrowed_token_says_what_it_was_made_for(tables: tuple[str, ...]) -> None:
    grant = READING._replace(tables=tables)
    token = SEAL.narrow(grant)
    assert SEAL.verify(token) == grant
    assert (token[:4], grant.scope) == ("wkr_", "read")
    assert set(token) <= set(ALPHABET), "it may stand in a URL"


def test_a_full_token_says_so() -> None:
    grant = SEAL.verify(TOKEN)
    assert (grant, grant.scope) == (Grant(INSTANCE, None, 0), "full")


def test_too_many_names_make_no_token() -> None:
    SEAL.narrow(READING._replace(tables=("x" * 1020,)))
    with pytest.raises(ValueError, match="too long"):
        SEAL.narrow(READING._replace(tables=("x" * 1021,)))


def test_no_kind_of_token_stands_in_for_another() -> None:
    narrow = SEAL.narrow(READING._replace(tables=("ab" * 5,)))
    same_length = SEAL.narrow(READING._replace(tables=("x" * 20,)))
    assert len(same_length) == len(TOKEN), "or only its length would tell"
    for token in (TOKEN, narrow, same_length):
        other = "wkr_" if token.startswith("wkn_") else "wkn_"
        assert refused(other + token[4:])


@given(at=st.integers(4, len(SEAL.narrow(READING)) - 1), letter=st.sampled_from(ALPHABET))
def test_a_narrowed_token_changed_anywhere_is_refused(at: int, letter: str) -> None:
    token = SEAL.narrow(READING)
    assume(token[at] != letter)
    assert refused(token[:at] + letter + token[at + 1 :])


@given(cut=st.integers(0, 60))
def test_a_narrowed_token_cut_or_lengthened_is_refused(cut: int) -> None:
    token = SEAL.narrow(READING)
    assert refused(token[: -cut - 1])
    assert refused(token[:4] + token[4 + cut + 1 :])
    assert refused(token + "A" * (cut + 1))


def test_another_key_refuses_a_narrowed_token() -> None:
    assert refused(SEAL.narrow(READING), Seal((OLD,)))
    assert Seal((OLD, NEW)).verify(SEAL.narrow(READING)) == READING
