"""Errors of a cell's: the contract's one shape."""

import json

import pytest

from sandbox.codes import CODES
from sandbox.refusal import Refusal, encode


def test_a_refusal_has_the_contracts_one_shape() -> None:
    refusal = Refusal("forbidden_keyword", "ATTACH", hint="no", statement=2)
    status, body = encode(refusal, "ab" * 16)
    assert status == 400
    assert json.loads(body) == {
        "error": "forbidden sql keyword: ATTACH",
        "code": "forbidden_keyword",
        "retryable": False,
        "request_id": "ab" * 16,
        "hint": "no",
        "statement": 2,
    }


def test_a_refusal_without_detail_is_the_codes_first_words() -> None:
    status, body = encode(Refusal("query_timeout"), "")
    assert (status, json.loads(body)["error"]) == (408, "query timed out")


@pytest.mark.parametrize("code", CODES)
def test_every_code_can_be_a_refusal(code: str) -> None:
    status, body = encode(Refusal(code, "why"), "")
    assert status == CODES[code].status
    assert json.loads(body)["error"] == f"{CODES[code].begins}: why"
