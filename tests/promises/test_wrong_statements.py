"""The promise: an error says what is wrong, where, and what was most likely meant.

wrong_statements.json has a small shop, and rows of a statement and its whole answer; what all of
the answers have in common is added below.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.handles import Client, Service

DATA = json.loads(Path(__file__).with_name("wrong_statements.json").read_text())
ROWS: list[tuple[str, dict[str, Any]]] = DATA["rows"]


@pytest.fixture(scope="module")
def shop(service: Service) -> Client:
    client = service.client()
    assert client.sql("".join(DATA["shop"])).status == 200
    return client


@pytest.mark.parametrize(("sql", "told"), ROWS, ids=[sql for sql, _ in ROWS])
def test_a_wrong_statement_is_answered_so(shop: Client, sql: str, told: dict[str, Any]) -> None:
    answer = shop.sql(sql)
    assert answer.status == 400
    body = answer.json
    assert body.pop("request_id") == answer.headers["x-request-id"]
    assert body == told | {"error": "invalid sql: " + told["error"], "retryable": False}


def test_there_are_enough_of_them() -> None:
    assert len(ROWS) >= 60


def test_nothing_of_them_stays(shop: Client) -> None:
    for sql, _ in ROWS:
        shop.sql(sql)
    assert shop.sql("SELECT * FROM customers").rows == [[1, "Ann", "ann@example.com"]]
    assert shop.sql("SELECT count(*) FROM orders").rows == [[1]]
