"""The table of error codes keeps the contract's statuses and first words."""

import re

import pytest

from sandbox.codes import CELL_STATUSES, CODES

#: Status and first words of `error`, from the contract's table.
CONTRACT = {
    "invalid_json": (400, "invalid json"),
    "missing_sql": (400, "missing sql"),
    "forbidden_keyword": (400, "forbidden sql keyword"),
    "sql_error": (400, "invalid sql"),
    "instance_not_found": (404, "instance not found"),
    "instance_expired": (404, "instance not found"),
    "query_timeout": (408, "query timed out"),
    "body_too_large": (413, "request body too large"),
    "content_type": (415, "content type must be application/json"),
    "rate_limited": (429, "rate limit exceeded"),
    "creation_limited": (429, "new-instance rate limit exceeded"),
    "quota_exceeded": (507, "instance storage quota exceeded"),
    "busy": (503, "server busy"),
    "internal": (500, "internal error"),
}


@pytest.mark.parametrize("name", CONTRACT)
def test_status_and_first_words_are_the_contracts(name: str) -> None:
    assert (CODES[name].status, CODES[name].begins) == CONTRACT[name]


@pytest.mark.parametrize("row", CODES.values(), ids=str)
def test_a_code_is_found_under_its_own_snake_case_name(row: object) -> None:
    (name,) = [name for name, found in CODES.items() if found is row]
    assert CODES[name].name == name
    assert re.fullmatch(r"[a-z]+(_[a-z0-9]+)*", name)


def test_retryable_is_what_time_alone_may_mend() -> None:
    retryable = {row.name for row in CODES.values() if row.retryable}
    assert retryable == {"busy", "rate_limited", "creation_limited", "body_timeout"}


def test_a_cell_may_not_answer_with_a_status_about_tokens_or_limits() -> None:
    assert {200, 400, 408, 409, 413, 500, 507} == CELL_STATUSES


@pytest.mark.parametrize("row", CODES.values(), ids=str)
def test_every_status_is_an_error_of_http(row: object) -> None:
    (found,) = [code for code in CODES.values() if code is row]
    assert 400 <= found.status < 600
