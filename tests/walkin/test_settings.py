"""The settings: the contract's defaults, every mistake at once, no secret shown."""

import re
from collections.abc import Callable
from dataclasses import fields
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.settings import SettingsError
from walkin import settings
from walkin.settings import MIN_KEY_CHARACTERS, ROWS, Secret, from_environ, parse_keys
from walkin.throttle import Throttle

ONE, TWO = "first-" + "1" * 40, "second-" + "2" * 40


def mistakes(**chosen: str) -> list[str]:
    """The mistakes found in some variables, given without their prefix."""
    with pytest.raises(SettingsError) as caught:
        from_environ({f"WALKIN_{name}": text for name, text in chosen.items()})
    return caught.value.mistakes


# --- defaults ---


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("host", "127.0.0.1"),
        ("port", 8080),
        ("ttl_s", 600),
        ("requests_per_min", 60),
        ("creations_per_min", 10),
        ("query_timeout_ms", 2000),
        ("trusted_proxies", ()),
        ("workers", 1),
        ("max_connections", 16_384),
        ("data_dir", Path("data").absolute()),
    ],
)
def test_the_defaults_are_those_of_the_contract(name: str, default: object) -> None:
    assert getattr(from_environ({}), name) == default


def test_the_cap_on_live_cells_follows_the_memory() -> None:
    assert 8 <= from_environ({}).max_live_cells <= 4096


def test_there_is_no_key_and_no_store_by_default() -> None:
    chosen = from_environ({})
    assert (chosen.token_keys, chosen.token_keys_file, chosen.rate_limit_store) == ((), None, None)


def test_every_row_is_a_field_and_every_field_a_row() -> None:
    assert {row.name for row in ROWS} == {field.name for field in fields(settings.Settings)}


def test_a_variable_and_its_flag_have_the_same_name() -> None:
    row = next(row for row in ROWS if row.name == "ttl_s")
    assert (row.variable, row.flag) == ("WALKIN_TTL_S", "--ttl-s")


def test_every_row_says_what_it_is_for() -> None:
    assert [row.name for row in ROWS if not row.help] == []


# --- values ---


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("HOST", "::1", "::1"),
        ("HOST", "localhost", "localhost"),
        ("PORT", "0", 0),
        ("PORT", "65535", 65_535),
        ("TTL_S", "2", 2),
        ("QUERY_TIMEOUT_MS", "500", 500),
        ("REQUESTS_PER_MIN", "0", 0),
        ("CREATIONS_PER_MIN", "1000000", 1_000_000),
        ("FORKS_PER_MIN", "32", 32),
        ("MAX_LIVE_CELLS", "3", 3),
        ("DATA_DIR", "/srv/walkin", Path("/srv/walkin")),
        ("TOKEN_KEYS_FILE", "/etc/walkin/keys", Path("/etc/walkin/keys")),
        ("TRUSTED_PROXIES", "10.0.0.1", (ip_network("10.0.0.1/32"),)),
        (
            "TRUSTED_PROXIES",
            "10.0.0.0/8, fd00::/8,",
            (ip_network("10.0.0.0/8"), ip_network("fd00::/8")),
        ),
    ],
)
def test_a_value_is_read(variable: str, text: str, value: object) -> None:
    assert getattr(from_environ({f"WALKIN_{variable}": text}), variable.lower()) == value


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        *(
            ("PORT", text)
            for text in ["-1", "65536", "", "80 ", "8o8o", "1e3", "0x50", "80.0", "٨٠"]
        ),
        ("TTL_S", "0"),
        ("TTL_S", "600s"),
        ("WORKERS", "0"),
        ("MAX_CONNECTIONS", "0"),
        ("QUERY_TIMEOUT_MS", "9"),
        ("REQUESTS_PER_MIN", "-1"),
        ("MAX_LIVE_CELLS", "0"),
        ("DATA_DIR", ""),
        ("HOST", ""),
        ("HOST", "http://localhost"),
        ("TRUSTED_PROXIES", "10.0.0.0/33"),
        ("TRUSTED_PROXIES", "10.0.0.1/8"),
        ("TRUSTED_PROXIES", "*"),
        ("RATE_LIMIT_STORE", "memcached://localhost:11211"),
        ("RATE_LIMIT_STORE", "localhost:6379"),
        ("CELL_USER", "root"),
        ("CELL_USER", "no-such-user-here"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_variable(variable: str, text: str) -> None:
    (mistake,) = mistakes(**{variable: text})
    assert mistake.startswith(f"WALKIN_{variable}=")


@given(st.from_regex(r"[0-9]{1,30}", fullmatch=True))
def test_a_whole_number_is_within_its_bounds_or_refused(text: str) -> None:
    try:
        assert 0 <= from_environ({"WALKIN_PORT": text}).port <= 65_535
    except SettingsError:
        assert int(text) > 65_535


@pytest.mark.parametrize("text", ["0" * 18 + "70000", "0" * 17 + "1" + "0" * 9])
def test_leading_zeros_do_not_lift_a_bound(text: str) -> None:
    assert mistakes(PORT=text)


def test_every_mistake_is_found_at_once() -> None:
    found = mistakes(
        HOST="",
        PORT="x",
        TTL_S="0",
        TRUSTED_PROXIES="nobody",
        TOKEN_KEYS="short",
        TOKEN_KEYS_FILE="/keys",
        MAX_LIVE_CELLS="none",
        WORKERS="0",
    )
    named = {re.match(r"WALKIN_[A-Z_]+", mistake).group() for mistake in found}  # type: ignore[union-attr]
    assert named == {
        f"WALKIN_{name}"
        for name in "HOST PORT TTL_S TRUSTED_PROXIES TOKEN_KEYS MAX_LIVE_CELLS WORKERS".split()
    }
    assert len(found) == 8  # TOKEN_KEYS is too short and not alone


def test_an_error_of_settings_reads_as_all_its_mistakes() -> None:
    with pytest.raises(SettingsError) as caught:
        from_environ({"WALKIN_PORT": "x", "WALKIN_TTL_S": "y"})
    assert all(mistake in str(caught.value) for mistake in caught.value.mistakes)


# --- several workers ---


def test_several_workers_without_a_shared_count_are_refused() -> None:
    (mistake,) = mistakes(WORKERS="2")
    assert "WALKIN_RATE_LIMIT_STORE" in mistake


def test_several_workers_with_one_limit_left_are_refused() -> None:
    assert mistakes(WORKERS="2", REQUESTS_PER_MIN="0")
    assert mistakes(WORKERS="2", CREATIONS_PER_MIN="0")


@pytest.mark.parametrize(
    "others",
    [
        {"RATE_LIMIT_STORE": "redis://127.0.0.1:6379"},
        {"REQUESTS_PER_MIN": "0", "CREATIONS_PER_MIN": "0", "FORKS_PER_MIN": "0"},
    ],
)
def test_several_workers_are_accepted_with(others: dict[str, str]) -> None:
    chosen = {f"WALKIN_{name}": text for name, text in others.items()}
    assert from_environ({"WALKIN_WORKERS": "2", **chosen}).workers == 2


# --- secrets ---


def test_keys_are_split_at_commas_oldest_to_newest() -> None:
    chosen = from_environ({"WALKIN_TOKEN_KEYS": f"{ONE}, {TWO},"})
    assert [key.reveal() for key in chosen.token_keys] == [ONE, TWO]


@given(st.integers(min_value=1, max_value=MIN_KEY_CHARACTERS - 1))
def test_a_key_that_is_too_short_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"at least {MIN_KEY_CHARACTERS}"):
        parse_keys(f"{ONE},{'k' * length}", ",")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("k" * 40 + "\udcff", id="a byte that is no text"),
        pytest.param("k" * 40 + "\u00fc", id="what a file of keys could not hold"),
        pytest.param("# this is a comment and everybody knows it", id="a comment"),
    ],
)
def test_what_is_hardly_meant_as_a_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="key"):
        parse_keys(f"{ONE}\n{text}", "\n")


def test_keys_and_a_file_of_keys_at_once_are_refused() -> None:
    (mistake,) = mistakes(TOKEN_KEYS=ONE, TOKEN_KEYS_FILE="/etc/walkin/keys")
    assert "not both" in mistake


def test_a_secret_does_not_show_itself() -> None:
    shown = [repr(Secret(ONE)), str(Secret(ONE)), f"{Secret(ONE)}", f"{[Secret(ONE)]}"]
    assert [text for text in shown if ONE in text] == []


def test_settings_do_not_show_their_secrets() -> None:
    store = "redis://:hunter2@127.0.0.1:6379"
    chosen = from_environ({"WALKIN_TOKEN_KEYS": ONE, "WALKIN_RATE_LIMIT_STORE": store})
    assert chosen.rate_limit_store is not None
    assert chosen.rate_limit_store.reveal() == store
    assert ONE not in repr(chosen)
    assert "hunter2" not in repr(chosen)


@pytest.mark.parametrize(
    ("variable", "text", "secret"),
    [
        ("TOKEN_KEYS", "hunter2", "hunter2"),
        ("TOKEN_KEYS", f"{ONE},hunter2", "hunter2"),
        ("TOKEN_KEYS", f"{ONE},hunter2", ONE),
        ("RATE_LIMIT_STORE", "hunter2", "hunter2"),
        ("RATE_LIMIT_STORE", "http://:hunter2@localhost", "hunter2"),
        ("RATE_LIMIT_STORE", "redis://:pass[hunter2]word@localhost:6379", "hunter2"),
        ("RATE_LIMIT_STORE", "redis://:hunter2\u2100@localhost:6379", "hunter2"),
        ("RATE_LIMIT_STORE", "redis://:[hunter2@localhost:6379", "hunter2"),
    ],
)
def test_a_mistake_in_a_secret_does_not_show_it(variable: str, text: str, secret: str) -> None:
    assert secret not in "".join(mistakes(**{variable: text}))


def test_secrets_have_no_flag() -> None:
    assert {row.name for row in ROWS if row.secret} == {"token_keys", "rate_limit_store"}


# --- the shared store ---


@pytest.mark.parametrize(
    ("given_as", "used_as"),
    [
        ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
        ("redis://user:word@127.0.0.1:6379/3", "redis://user:word@127.0.0.1:6379/3"),
        ("rediss://cache.example:6380", "rediss://cache.example:6380"),
        ("redis+unix:///run/redis.sock", "redis+unix:///run/redis.sock"),
        ("valkey://127.0.0.1:6379", "redis://127.0.0.1:6379"),
        ("valkeys://cache.example:6380", "rediss://cache.example:6380"),
        ("valkey+unix:///run/valkey.sock", "redis+unix:///run/valkey.sock"),
    ],
)
def test_a_store_is_reached_by_rediss_client(given_as: str, used_as: str) -> None:
    chosen = from_environ({"WALKIN_RATE_LIMIT_STORE": given_as})
    assert chosen.rate_limit_store is not None
    assert chosen.rate_limit_store.reveal() == used_as
    Throttle(chosen)


@pytest.mark.parametrize(
    "text",
    [
        "redis://localhost",
        "redis://localhost/1",
        "valkey://localhost",
        "redis://localhost:port",
        "redis://localhost:99999",
        "REDIS://localhost:6379",
    ],
)
def test_a_store_that_is_accepted_can_be_used(text: str) -> None:
    try:
        chosen = from_environ({"WALKIN_RATE_LIMIT_STORE": text})
    except SettingsError:
        return  # refused with the other mistakes: as good
    Throttle(chosen)


# --- purity ---


def test_reading_looks_at_what_it_is_given_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WALKIN_PORT", "1")
    monkeypatch.setenv("WALKIN_TTL_S", "nonsense")
    assert from_environ({}).port == 8080


def test_reading_changes_nothing() -> None:
    environ = {"WALKIN_PORT": "1", "OTHER": "x"}
    from_environ(environ)
    assert environ == {"WALKIN_PORT": "1", "OTHER": "x"}


def test_reading_makes_no_folder(tmp_path: Path, make_settings: Callable[..., object]) -> None:
    make_settings(data_dir=tmp_path / "data", token_keys_file=tmp_path / "keys")
    assert list(tmp_path.iterdir()) == []


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        from_environ({}).port = 1  # type: ignore[misc]


def test_a_variable_of_ours_that_is_no_setting_is_named() -> None:
    environ = {"WALKIN_TTL": "1", "WALKIN_TTL_S": "1", "WALKIN_PROT": "1", "PATH": "/bin"}
    assert settings.unknown(environ) == ["WALKIN_PROT", "WALKIN_TTL"]
