"""Paths with a part of the caller's: what fits which, and by what name it goes."""

import pytest

from walkin import paths

KNOWN = {"/sql", "/session/checkpoints", "/tables/{name}"}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/sql", "/sql"),
        ("/session/checkpoints", "/session/checkpoints"),
        ("/tables/t", "/tables/{name}"),
        ("/tables/", "/tables/{name}"),
        ("/tables/a/b", "/tables/{name}"),
        ("/tables/a\nb\n", "/tables/{name}"),
        ("/sql.csv", "/sql.{form}"),
        ("/sql.", "/sql.{form}"),
        ("/sql.a/b", "other"),
        ("/session/checkpoints/a", "/session/checkpoints/{name}"),
        ("/session/checkpoints/a/restore", "/session/checkpoints/{name}/restore"),
        ("/session/checkpoints/restore", "/session/checkpoints/{name}"),
        ("/session/checkpoints/restore/restore", "/session/checkpoints/{name}/restore"),
        ("/session/checkpoints/", "other"),
        ("/session/checkpoints//restore", "other"),
        ("/session/checkpoints/a/b", "other"),
        ("/session/checkpoints/a/restore/", "other"),
        ("/elsewhere", "other"),
    ],
)
def test_a_path_goes_by_one_name(path: str, name: str) -> None:
    assert paths.named(path, KNOWN) == name


@pytest.mark.parametrize(
    ("template", "path", "part"),
    [
        ("/tables/{name}", "/tables/a/b\n", "a/b\n"),
        ("/sql.{form}", "/sql.md", "md"),
        ("/session/checkpoints/{name}", "/session/checkpoints/a\n", "a\n"),
    ],
)
def test_its_part_is_all_of_it(template: str, path: str, part: str) -> None:
    found = paths.pattern(template).match(path)
    assert found is not None
    assert found.groups() == (part,)


def test_a_plain_path_is_itself_and_nothing_more() -> None:
    assert paths.pattern("/sql").match("/sql")
    for other in ("/sql\n", "/sql/", "/sqlx", "/"):
        assert not paths.pattern("/sql").match(other)
    assert not paths.pattern("/dump.sql").match("/dumpxsql")
