"""The token keys: where they come from, who may read them, and that they are made only once."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.handles import ROOT
from walkin import keys
from walkin.keys import FILE_NAME, KeysError
from walkin.settings import MIN_KEY_CHARACTERS, Settings

Make = Callable[..., Settings]

ONE, TWO = "first-" + "1" * 40, "second-" + "2" * 40


def texts(settings: Settings) -> list[str]:
    return [key.reveal() for key in keys.load(settings)]


# --- made once ---


def test_a_key_is_made_where_there_is_none(make_settings: Make) -> None:
    settings = make_settings()
    keys.ensure(settings)
    (key,) = texts(settings)
    assert len(key) == 64  # 48 random bytes


def test_the_key_file_is_its_owners_alone(make_settings: Make) -> None:
    settings = make_settings()
    before = os.umask(0)
    try:
        keys.ensure(settings)
    finally:
        os.umask(before)
    assert stat.S_IMODE((settings.data_dir / FILE_NAME).stat().st_mode) == 0o600


def test_a_made_key_is_kept(make_settings: Make) -> None:
    settings = make_settings()
    keys.ensure(settings)
    first = texts(settings)
    keys.ensure(settings)
    assert texts(settings) == first


def test_two_folders_get_different_keys(make_settings: Make, tmp_path: Path) -> None:
    one, two = (make_settings(data_dir=tmp_path / name) for name in ("one", "two"))
    keys.ensure(one)
    keys.ensure(two)
    assert texts(one) != texts(two)


def test_the_data_folder_is_made_on_the_way(make_settings: Make, tmp_path: Path) -> None:
    settings = make_settings(data_dir=tmp_path / "a" / "b")
    keys.ensure(settings)
    assert [entry.name for entry in (tmp_path / "a" / "b").iterdir()] == [FILE_NAME]


def test_nothing_but_the_key_file_is_left_behind(make_settings: Make, tmp_path: Path) -> None:
    keys.ensure(make_settings())
    assert [entry.name for entry in tmp_path.iterdir()] == [FILE_NAME]


def test_the_part_that_a_crash_left_behind_is_no_obstacle(make_settings: Make) -> None:
    # In a container every start has the same process id.
    settings = make_settings()
    (settings.data_dir / f".{FILE_NAME}.{os.getpid()}").write_text("half a k")
    keys.ensure(settings)
    assert len(texts(settings)) == 1


def test_processes_that_race_agree_on_one_key(make_settings: Make) -> None:
    settings = make_settings()
    script = (
        "import sys\n"
        "from walkin import keys, settings\n"
        "chosen = settings.from_environ({'WALKIN_DATA_DIR': sys.argv[1]})\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "keys.ensure(chosen)\n"
        "print(keys.load(chosen)[-1].reveal(), flush=True)\n"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(settings.data_dir)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for racer in racers:
        assert racer.stdout
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin
        racer.stdin.write("go\n")
        racer.stdin.flush()
    found = {racer.communicate(timeout=20)[0].strip() for racer in racers}
    assert [racer.returncode for racer in racers] == [0] * len(racers)
    assert found == set(texts(settings))


@pytest.mark.parametrize("named", ["token_keys", "token_keys_file"])
def test_no_key_is_made_when_the_settings_name_some(
    make_settings: Make, tmp_path: Path, named: str
) -> None:
    value = ONE if named == "token_keys" else tmp_path / "elsewhere"
    keys.ensure(make_settings(**{named: value}))
    assert list(tmp_path.iterdir()) == []


# --- found ---


def test_keys_from_the_setting_keep_their_order(make_settings: Make) -> None:
    assert texts(make_settings(token_keys=f"{ONE},{TWO}")) == [ONE, TWO]


def test_keys_from_a_file_keep_their_order(make_settings: Make, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{ONE}\n{TWO}\n")
    assert texts(make_settings(token_keys_file=file)) == [ONE, TWO]


def test_white_space_and_empty_lines_are_no_part_of_a_key(
    make_settings: Make, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    file.write_text(f"\r\n  {ONE}\t\r\n\r\n{TWO}")
    assert texts(make_settings(token_keys_file=file)) == [ONE, TWO]


def test_the_setting_goes_before_the_file_in_the_data_folder(make_settings: Make) -> None:
    keys.ensure(make_settings())
    assert texts(make_settings(token_keys=ONE)) == [ONE]


def test_a_key_appended_to_the_made_file_is_the_newest(make_settings: Make) -> None:
    settings = make_settings()
    keys.ensure(settings)
    (made,) = texts(settings)
    with (settings.data_dir / FILE_NAME).open("a") as file:
        file.write(TWO + "\n")
    assert texts(settings) == [made, TWO]


# --- refused ---


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o660, 0o602, 0o620, 0o610, 0o644])
def test_a_made_file_that_others_can_reach_is_refused(make_settings: Make, mode: int) -> None:
    settings = make_settings()
    keys.ensure(settings)
    (settings.data_dir / FILE_NAME).chmod(mode)
    with pytest.raises(KeysError, match="set its mode to 0600"):
        keys.load(settings)


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_made_file_that_is_its_owners_alone_is_taken(make_settings: Make, mode: int) -> None:
    settings = make_settings()
    keys.ensure(settings)
    (settings.data_dir / FILE_NAME).chmod(mode)
    assert len(texts(settings)) == 1


def test_a_file_named_by_the_setting_is_the_operators_own_to_guard(
    make_settings: Make, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    file.write_text(ONE)
    file.chmod(0o640)
    assert texts(make_settings(token_keys_file=file)) == [ONE]


def test_no_file_is_an_error_that_names_it(make_settings: Make) -> None:
    with pytest.raises(KeysError, match=FILE_NAME):
        keys.load(make_settings())


def test_a_named_file_that_is_missing_is_an_error(make_settings: Make, tmp_path: Path) -> None:
    with pytest.raises(KeysError, match="elsewhere"):
        keys.load(make_settings(token_keys_file=tmp_path / "elsewhere"))


@pytest.mark.parametrize("content", ["", "\n", "  \n\t\n"])
def test_a_file_without_a_key_is_an_error(
    make_settings: Make, tmp_path: Path, content: str
) -> None:
    file = tmp_path / "keys"
    file.write_text(content)
    with pytest.raises(KeysError, match="no key"):
        keys.load(make_settings(token_keys_file=file))


def test_one_key_that_is_too_short_spoils_the_file(make_settings: Make, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{ONE}\n{'s' * (MIN_KEY_CHARACTERS - 1)}\n")
    with pytest.raises(KeysError, match=f"at least {MIN_KEY_CHARACTERS}"):
        keys.load(make_settings(token_keys_file=file))


def test_a_key_of_the_least_length_is_taken(make_settings: Make, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("s" * MIN_KEY_CHARACTERS)
    assert texts(make_settings(token_keys_file=file)) == ["s" * MIN_KEY_CHARACTERS]


def test_a_file_that_is_not_text_is_an_error(make_settings: Make, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(os.urandom(64) + b"\xff")
    with pytest.raises(KeysError):
        keys.load(make_settings(token_keys_file=file))


def test_an_error_does_not_show_the_keys(make_settings: Make, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{ONE}\nshort-secret\n")
    with pytest.raises(KeysError) as caught:
        keys.load(make_settings(token_keys_file=file))
    assert ONE not in str(caught.value)
    assert "short-secret" not in str(caught.value)
