"""The promise: the log tells what happened and to which database, and nothing of what is in it.

No token, no SQL, no value: not of calls that went well, nor of those that failed in any way.
"""

import os
import signal
from collections.abc import Callable

from tests.handles import Service, wait_until

MARK = "kolibri"
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
#: SQLite does not look at its clock during this: the kernel's timer ends the cell.
DEAF = "SELECT trim(printf('%.*c', 900000, 'x'), printf('%.*c', 80000, 'y') || 'x')"

CALLS = {
    f"CREATE TABLE {MARK}(x); INSERT INTO {MARK} VALUES('{MARK}')": 200,
    f"SELECT '{MARK}', ?": 200,
    f"SELECT {MARK} FROM nowhere": 400,
    f"ATTACH '{MARK}' AS {MARK}": 400,
    f"SELECT '{MARK}'; BEGIN": 400,
    f"SELECT '{MARK}', CAST(x'ff' AS TEXT)": 400,
    f"{ENDLESS} -- {MARK}": 408,
    f"{DEAF} -- {MARK}": 408,
    f"INSERT INTO {MARK} SELECT zeroblob(900000) FROM json_each('[{', '.join('1' * 13)}]')": 507,
}


def test_whatever_a_call_comes_to_its_words_are_not_in_the_log(
    make_service: Callable[..., Service],
) -> None:
    service = make_service(requests_per_min=100, creations_per_min=1)
    client = service.client()
    for sql, status in CALLS.items():
        args = [f"{MARK} 2"] if "?" in sql else None
        assert client.sql(sql, args).status == status, sql
    assert service.client().sql(f"SELECT '{MARK}'").status == 429
    assert service.client(f"wkn_{MARK}").sql("SELECT 1").status == 404
    assert client.post(b'{"sql": "%s"' % MARK.encode()).status == 400
    os.kill(service.cell(client), signal.SIGSEGV)
    wait_until(lambda: "died of SIGSEGV" in service.log(), 5, "the death is logged")
    assert client.sql(f"SELECT '{MARK}'").status == 200
    log = service.log()
    assert client.token
    assert MARK not in log
    assert client.token not in log
    assert client.token[4:68] not in log
    # What it is for: whoever looks finds the database and the call.
    assert client.instance in log
