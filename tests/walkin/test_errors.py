"""The complaints book: every refusal in one shape, with the contract's statuses and words."""

import re

import orjson
import pytest

from sandbox.codes import CELL_STATUSES, CODES
from walkin.errors import Refused, busy

#: The table of the contract: the status of an error and how its `error` begins.
CONTRACT = [
    ("invalid_json", 400, "invalid json"),
    ("missing_sql", 400, "missing sql"),
    ("forbidden_keyword", 400, "forbidden sql keyword"),
    ("sql_error", 400, "invalid sql"),
    ("instance_not_found", 404, "instance not found"),
    ("instance_expired", 404, "instance not found"),
    ("query_timeout", 408, "query timed out"),
    ("body_too_large", 413, "request body too large"),
    ("content_type", 415, "content type must be application/json"),
    ("rate_limited", 429, "rate limit exceeded"),
    ("creation_limited", 429, "new-instance rate limit exceeded"),
    ("quota_exceeded", 507, "instance storage quota exceeded"),
    ("busy", 503, "server busy"),
    ("internal", 500, "internal error"),
]


@pytest.mark.parametrize(("code", "status", "begins"), CONTRACT)
def test_a_code_has_the_status_and_the_words_of_the_contract(
    code: str, status: int, begins: str
) -> None:
    refused = Refused(code)
    assert (refused.row.status, refused.body("r")["error"]) == (status, begins)


@pytest.mark.parametrize("code", CODES)
def test_every_body_has_the_four_members(code: str) -> None:
    body = Refused(code).body("00ff")
    assert set(body) == {"error", "code", "retryable", "request_id"}
    assert (body["code"], body["request_id"]) == (code, "00ff")
    assert isinstance(body["retryable"], bool)


@pytest.mark.parametrize("code", CODES)
def test_every_code_is_snake_case_and_filed_under_itself(code: str) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z0-9]+)*", code)
    assert CODES[code].name == code


@pytest.mark.parametrize("code", CODES)
def test_every_code_says_when_it_comes(code: str) -> None:
    assert CODES[code].when


def test_what_may_do_better_later_is_retryable() -> None:
    assert {code for code in CODES if Refused(code).body("r")["retryable"]} == {
        "body_timeout",
        "rate_limited",
        "creation_limited",
        "busy",
    }


def test_a_detail_follows_the_first_words() -> None:
    assert Refused("invalid_json", "not this").body("r")["error"] == "invalid json: not this"


def test_further_fields_are_members_of_the_body() -> None:
    body = Refused("sql_error", hint="try", offset=3).body("r")
    assert (body["hint"], body["offset"]) == ("try", 3)


def test_a_body_can_be_written_as_json() -> None:
    body = Refused("unknown_field", "\u2028ü\0").body("r")
    assert orjson.loads(orjson.dumps(body)) == body


def test_headers_are_the_refusals_own() -> None:
    headers = {"Allow": "GET"}
    refused = Refused("method_not_allowed", headers=headers)
    refused.headers["X"] = "y"
    assert headers == {"Allow": "GET"}


def test_two_refusals_share_no_headers() -> None:
    one, two = Refused("busy"), Refused("busy")
    one.headers["X"] = "y"
    assert two.headers == {}


def test_a_code_that_is_not_in_the_table_is_a_fault_of_ours() -> None:
    with pytest.raises(KeyError):
        Refused("no_such_code")


@pytest.mark.parametrize(("seconds", "said"), [(1, "1"), (5, "5")])
def test_busy_says_when_to_come_back(seconds: int, said: str) -> None:
    refused = busy(seconds)
    assert (refused.row.status, refused.headers) == (503, {"Retry-After": said})


def test_busy_says_one_second_by_default() -> None:
    assert busy().headers["Retry-After"] == "1"


def test_a_cell_cannot_give_the_statuses_that_are_the_front_desks() -> None:
    assert sorted(CELL_STATUSES) == [200, 400, 408, 409, 413, 500, 507]
