"""The reaper's settings are three of the sandbox's."""

from pathlib import Path

import pytest

from reaper import settings
from sandbox.settings import SettingsError
from tests.sandbox.handles import CELL_USER


def test_the_reaper_knows_where_the_databases_lie_and_whom_to_be() -> None:
    chosen = settings.from_environ({"WALKIN_DATA_DIR": "/srv/x"})
    assert chosen == settings.Settings(Path("/srv/x"), CELL_USER, "text")


def test_settings_of_others_are_passed_over() -> None:
    chosen = settings.from_environ({"WALKIN_MAX_LIVE_CELLS": "rubbish", "WALKIN_TTL_S": "rubbish"})
    assert chosen.cell_user == CELL_USER


def test_every_mistake_is_named_at_once() -> None:
    wrong = {"WALKIN_DATA_DIR": "", "WALKIN_CELL_USER": "no-such-user"}
    with pytest.raises(SettingsError) as raised:
        settings.from_environ(wrong)
    assert [mistake.partition("=")[0] for mistake in raised.value.mistakes] == list(wrong)


def test_a_sweep_comes_well_within_the_five_seconds_that_are_promised() -> None:
    assert settings.SWEEP_S <= 1
