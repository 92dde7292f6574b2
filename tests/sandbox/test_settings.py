"""Settings: each has its bounds, and every mistake is named at once."""

import os
import pwd
from pathlib import Path

import pytest

from sandbox import settings
from sandbox.settings import Row, SettingsError, User, whole
from tests.sandbox.handles import AS_ROOT, CELL_USER, in_child

as_root = pytest.mark.skipif(not AS_ROOT, reason="only root becomes another user")
as_user = pytest.mark.skipif(AS_ROOT, reason="root becomes another user")


# --- rows ---


def test_a_row_names_its_variable_and_its_flag() -> None:
    row = Row("max_live_cells", "1", int, "")
    assert (row.variable, row.flag) == ("WALKIN_MAX_LIVE_CELLS", "--max-live-cells")


def test_what_is_not_set_has_its_default() -> None:
    rows = (Row("one", "1", int, ""), Row("two", "2", int, ""))
    assert settings.read(rows, {"WALKIN_TWO": "22"}) == {"one": 1, "two": 22}


def test_an_empty_variable_is_a_value_and_not_the_default() -> None:
    assert settings.read((Row("one", "1", str, ""),), {"WALKIN_ONE": ""}) == {"one": ""}


def test_variables_without_a_row_are_passed_over() -> None:
    assert settings.read((), {"WALKIN_OTHER": "x", "PATH": "y"}) == {}


def test_all_mistakes_are_told_at_once_with_variable_and_value() -> None:
    rows = (Row("one", "", whole(1, 9), ""), Row("two", "", whole(1, 9), ""))
    with pytest.raises(SettingsError) as raised:
        settings.read(rows, {"WALKIN_ONE": "x", "WALKIN_TWO": "10"})
    assert raised.value.mistakes == [
        "WALKIN_ONE='x': must be a whole number from 1 to 9",
        "WALKIN_TWO='10': must be a whole number from 1 to 9",
    ]
    assert str(raised.value) == "; ".join(raised.value.mistakes)


def test_a_secret_with_a_mistake_is_not_shown() -> None:
    rows = (Row("token", "", whole(1, 9), "", secret=True),)
    with pytest.raises(SettingsError) as raised:
        settings.read(rows, {"WALKIN_TOKEN": "hunter2"})
    assert "hunter2" not in str(raised.value)
    assert raised.value.mistakes[0].startswith("WALKIN_TOKEN=(hidden): ")


def test_the_sandbox_has_no_secret_to_keep() -> None:
    assert not any(row.secret for row in settings.ROWS)


@pytest.mark.parametrize("row", settings.ROWS, ids=lambda row: row.name)
def test_every_default_is_a_value_and_every_row_says_what_it_is(row: Row) -> None:
    value = settings.read((row,), {})[row.name]
    assert value is not None or row.name in ("front_user", "reaper_user")
    assert row.help


# --- parsers ---


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("7", 7), ("256", 256), ("007", 7)])
def test_a_whole_number_within_its_bounds_is_taken(text: str, number: int) -> None:
    assert whole(0, 256)(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "+1",
        "257",
        "1.0",
        "1e2",
        "0x10",
        " 1",
        "1 ",
        "1_0",
        "\u0661",
        "\u00b2",
        "9" * 5000,
        "0" * 18 + "257",
        "0" * 20 + "99999",
    ],
)
def test_anything_but_a_whole_number_within_its_bounds_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a whole number from 0 to 256"):
        whole(0, 256)(text)


def test_a_number_below_its_least_is_refused() -> None:
    with pytest.raises(ValueError, match="from 5 to 9"):
        whole(5, 9)("4")


def test_a_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert settings.path("data") == tmp_path / "data"
    assert settings.path("/srv/walkin") == Path("/srv/walkin")


@pytest.mark.parametrize("text", ["", "a\0b"])
def test_what_cannot_be_a_path_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a path"):
        settings.path(text)


def test_the_number_of_cells_is_the_one_given() -> None:
    assert settings.cells_by_memory("17") == 17


def test_the_number_of_cells_follows_the_machines_memory() -> None:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    found = settings.cells_by_memory("")
    assert 8 <= found <= 4096
    if 8 < found < 4096:
        assert found * (8 << 20) <= total // 4 < (found + 1) * (8 << 20)


@pytest.mark.parametrize("text", ["0", "100001", "many"])
def test_an_impossible_number_of_cells_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="from 1 to 100000"):
        settings.cells_by_memory(text)


# --- users ---


@as_root
def test_root_gives_its_work_to_nobody() -> None:
    nobody = pwd.getpwnam("nobody")
    assert settings.user("") == User(nobody.pw_uid, nobody.pw_gid)


@as_root
def test_a_user_is_found_by_name_and_by_number() -> None:
    nobody = pwd.getpwnam("nobody")
    expected = User(nobody.pw_uid, nobody.pw_gid)
    assert settings.user("nobody") == settings.user(str(nobody.pw_uid)) == expected


@as_root
def test_a_number_without_an_entry_has_the_same_group() -> None:
    assert settings.user("64123") == User(64_123, 64_123)


@as_root
@pytest.mark.parametrize("text", ["root", "0", "00"])
def test_cells_never_run_as_root(text: str) -> None:
    with pytest.raises(ValueError, match="must not run as root"):
        settings.user(text)


# 4294967295 is -1 to the kernel: "leave it as it is", so root would stay root.
@pytest.mark.parametrize(
    "text", ["no-such-user", "-1", "4294967295", "4294967296", "9" * 30, "no\u00fcser"]
)
def test_an_impossible_user_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no such user"):
        settings.user(text)


@as_root
def test_becoming_a_user_leaves_no_way_back_and_no_group() -> None:
    def become(_: object) -> str:
        try:
            os.setresuid(0, 0, 0)
        except PermissionError:
            return f"{os.getresuid()} {os.getresgid()} {os.getgroups()}"
        return "root again"

    uid, gid = CELL_USER.uid, CELL_USER.gid
    expected = f"{(uid, uid, uid)} {(gid, gid, gid)} []"
    assert in_child(become).word == expected


@as_user
def test_an_ordinary_user_runs_cells_as_itself() -> None:
    mine = User(os.geteuid(), os.getegid())
    assert settings.user("") == settings.user(str(os.geteuid())) == mine


@as_user
def test_an_ordinary_user_cannot_run_cells_as_another() -> None:
    with pytest.raises(ValueError, match="only root can run cells as another user"):
        settings.user("root")


def test_becoming_oneself_needs_no_privilege() -> None:
    User(os.geteuid(), os.getegid()).become()


# --- all together ---


def test_settings_come_from_the_environment() -> None:
    chosen = settings.from_environ(
        {
            "WALKIN_DATA_DIR": "/srv/x",
            "WALKIN_MAX_LIVE_CELLS": "3",
            "WALKIN_BLANK_CELLS": "0",
            "WALKIN_CELL_IDLE_S": "5",
            "WALKIN_FRONT_USER": "daemon",
            "WALKIN_MAX_LIFE_S": "700",
            "WALKIN_LOG_FORMAT": "json",
        }
    )
    front = User(pwd.getpwnam("daemon").pw_uid, pwd.getpwnam("daemon").pw_gid)
    assert chosen == settings.Settings(
        Path("/srv/x"), CELL_USER, front, None, 3, 0, 5, 700, log_format="json"
    )


def test_every_wrong_setting_is_named() -> None:
    wrong = {row.variable: "\0" for row in settings.ROWS}
    with pytest.raises(SettingsError) as raised:
        settings.from_environ(wrong)
    assert [mistake.partition("=")[0] for mistake in raised.value.mistakes] == list(wrong)
