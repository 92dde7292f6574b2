"""Files that are not what they were: one tenant is hurt, told clearly, and nobody else is."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

from tests.handles import Client, Service, wait_until
from tests.hostile.sql_case import ANY_SQL_ERROR


def fill(client: Client) -> Client:
    client.sql("CREATE TABLE kept(x); CREATE INDEX by_x ON kept(x)")
    client.sql(
        "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 5000)"
        " INSERT INTO kept SELECT i || ' is the number' FROM n"
    )
    return client


def put_to_rest(service: Service, clients: list[Client]) -> list[Path]:
    """Have all cells given up; return the folders with the clients' files."""
    service.signal("zygote", signal.SIGTERM)
    for client in clients:
        role = f"cell {client.instance}"
        wait_until(lambda role=role: not service.pids(role), 10, "the cells are gone")
    cells = service.data_dir / "cells" / "instances"
    return [cells / client.instance[-2:] / client.instance for client in clients]


def scribble(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.seek(5000)
        opened.write(os.urandom(30_000))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "rubbish in the middle": scribble,
    "rubbish from the start": lambda file: file.write_bytes(os.urandom(20_000)),
    "cut off": lambda file: os.truncate(file, 7000),
    "empty": lambda file: os.truncate(file, 0),
    "a header of another page size": lambda file: file.write_bytes(
        file.read_bytes()[:16] + b"\x00\x01" + file.read_bytes()[18:]
    ),
    "rubbish in the WAL": lambda file: file.with_name("main.db-wal").write_bytes(
        os.urandom(100_000)
    ),
}


#: Records that say nothing, and one that is not there.
RECORDS = ["", "tomorrow", "-1", "9" * 40, None]


def test_damage_hurts_its_own_tenant_alone(make_service: Callable[..., Service]) -> None:
    service = make_service(ttl_s=20, requests_per_min=0, creations_per_min=0)
    neighbour = fill(service.client())
    victims = {damage: fill(service.client()) for damage in DAMAGES}
    recordless = [fill(service.client()) for _ in RECORDS]
    folders = put_to_rest(service, [*victims.values(), *recordless, neighbour])
    for (damage, _), folder in zip(victims.items(), folders, strict=False):
        DAMAGES[damage](folder / "main.db")
    for content, client in zip(RECORDS, recordless, strict=True):
        record = service.data_dir / "cells" / "expiry" / client.instance[-2:] / client.instance
        record.unlink()
        if content:
            record.symlink_to(content)
        elif content is not None:
            record.write_text("")

    for damage, victim in victims.items():
        for sql in ("SELECT count(*), max(x) FROM kept", "INSERT INTO kept VALUES ('more')"):
            answer = victim.sql(sql)
            assert answer.status in (200, 400), (damage, answer)
            if answer.status == 400:
                assert answer.code in ANY_SQL_ERROR, (damage, answer)
                assert answer.json["error"].startswith("invalid sql: "), (damage, answer)
                assert answer.json["sqlite_code"].startswith("SQLITE_"), (damage, answer)
    for content, client in zip(RECORDS, recordless, strict=True):
        answer = client.sql("SELECT 1")
        assert (answer.status, answer.code) == (404, "instance_expired"), content
    assert neighbour.sql("SELECT count(*) FROM kept").rows == [[5000]]
    assert neighbour.sql("PRAGMA integrity_check").rows == [["ok"]]
    assert "Traceback" not in service.log()
    wait_until(lambda: not service.traces(), 35, "all are reaped like any other")
    assert {victim.sql("SELECT 1").status for victim in victims.values()} == {404}
