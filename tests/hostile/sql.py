"""The list of attacks by SQL, all of it: what each hopes for, and the only answer it may get.

`QUICK` are answered at once; each of `SLOW` takes the whole two seconds of a call.
"""

from tests.hostile import (
    sql_memory,
    sql_pragmas,
    sql_quota,
    sql_reach,
    sql_schema,
    sql_text,
    sql_time,
)
from tests.hostile.sql_case import Case

GROUPS = {
    "reach": sql_reach.CASES,
    "pragmas": sql_pragmas.CASES,
    "quota": sql_quota.CASES,
    "memory": sql_memory.CASES,
    "schema": sql_schema.CASES,
    "text": sql_text.CASES,
    "time": sql_time.CASES,
}
CASES: dict[str, Case] = {
    f"{group}: {case.name}": case for group, cases in GROUPS.items() for case in cases
}
SLOW = {name: case for name, case in CASES.items() if case in sql_time.CASES}
QUICK = {name: case for name, case in CASES.items() if name not in SLOW}
