"""Data as people have it, loaded and questioned over HTTP; Python's own sqlite3 is the judge.

The tables are among those that come inside the package vega_datasets: US airports (3,376 rows),
406 cars, share prices and Seattle's weather.
"""

import csv
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import vega_datasets

from tests.handles import Client, Service

FOLDER = Path(vega_datasets.__file__).parent / "_data"
MOST_BODY_BYTES = 8192

SCHEMA = """
    CREATE TABLE airports(
        iata TEXT PRIMARY KEY, name TEXT NOT NULL, city TEXT, state TEXT, country TEXT NOT NULL,
        latitude REAL NOT NULL, longitude REAL NOT NULL
    ) STRICT;
    CREATE INDEX airports_by_state ON airports(state, city);
    CREATE TABLE cars(
        name TEXT, miles_per_gallon, cylinders INTEGER, displacement, horsepower INTEGER,
        weight INTEGER, acceleration, year TEXT, origin TEXT
    );
    CREATE TABLE stocks(symbol TEXT, date TEXT, price REAL);
    CREATE TABLE weather(
        date TEXT PRIMARY KEY, rain REAL, warmest REAL, coldest REAL, wind REAL, kind TEXT
    ) WITHOUT ROWID;
    CREATE VIRTUAL TABLE found USING fts5(iata UNINDEXED, name, city, tokenize='porter unicode61')
"""


def read_csv(name: str) -> list[list[str]]:
    with (FOLDER / name).open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


def tables() -> dict[str, list[list[Any]]]:
    """The rows of every table."""
    airports: list[list[Any]] = [
        [*row[:5], float(row[5]), float(row[6])] for row in read_csv("airports.csv")
    ]
    for row in airports:
        row[2:4] = [None if text == "NA" else text for text in row[2:4]]
    cars = [list(car.values()) for car in json.loads((FOLDER / "cars.json").read_text("utf-8"))]
    stocks = [[*row[:2], float(row[2])] for row in read_csv("stocks.csv")]
    weather = [
        [row[0].replace("/", "-"), *map(float, row[1:5]), row[5]]
        for row in read_csv("seattle-weather.csv")
    ]
    found = [row[:3] for row in airports]
    return {
        "airports": airports,
        "cars": cars,
        "stocks": stocks,
        "weather": weather,
        "found": found,
    }


def calls(table: str, rows: list[list[Any]]) -> Iterator[tuple[bytes, int]]:
    """INSERT calls with as many rows as fit the body limit, and how many that are."""
    width = len(rows[0])
    row_sql = f"({','.join('?' * width)})"

    def body(part: list[list[Any]]) -> bytes:
        sql = f"INSERT INTO {table} VALUES {','.join([row_sql] * len(part))}"
        return json.dumps({"sql": sql, "args": [value for row in part for value in row]}).encode()

    part: list[list[Any]] = []
    for row in rows:
        if len(body([*part, row])) > MOST_BODY_BYTES:
            yield body(part), len(part)
            part = []
        part.append(row)
    yield body(part), len(part)


class Loaded(NamedTuple):
    client: Client
    judge: sqlite3.Connection


@pytest.fixture(scope="module")
def loaded(service: Service) -> Iterator[Loaded]:
    """The same data behind HTTP and in plain sqlite3."""
    judge = sqlite3.connect(":memory:", isolation_level=None)
    judge.execute("PRAGMA foreign_keys=ON")
    judge.executescript(SCHEMA)
    client = service.client()
    assert client.sql(SCHEMA).json == {"rows_affected": 0}
    for table, rows in tables().items():
        for body, count in calls(table, rows):
            assert len(body) <= MOST_BODY_BYTES
            answer = client.post(body)
            assert (answer.status, answer.json) == (200, {"rows_affected": count})
        marks = ",".join("?" * len(rows[0]))
        judge.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
    yield Loaded(client, judge)
    judge.close()


QUESTIONS = {
    "everything": "SELECT * FROM airports ORDER BY iata",
    "unusual floats": "SELECT iata, latitude, longitude FROM airports WHERE latitude < 0 OR"
    " longitude > 0 OR latitude > 70 ORDER BY iata",
    "group by and having": """
        SELECT state, count(*) AS airports, count(DISTINCT city) AS cities, min(name), max(name)
        FROM airports WHERE country = 'USA' GROUP BY state HAVING count(*) >= 50
        ORDER BY airports DESC, state""",
    "self join": """
        SELECT a.iata, b.iata, a.city FROM airports a
        JOIN airports b ON a.city = b.city AND a.state = b.state AND a.iata < b.iata
        WHERE a.state IN ('CA', 'NY') ORDER BY 1, 2""",
    "left join that finds nothing": """
        SELECT s.symbol, c.origin FROM (SELECT DISTINCT symbol FROM stocks) s
        LEFT JOIN cars c ON lower(c.name) = lower(s.symbol) ORDER BY 1""",
    "full and right join": """
        SELECT a.origin, b.origin FROM (SELECT DISTINCT origin FROM cars WHERE cylinders = 8) a
        FULL JOIN (SELECT DISTINCT origin FROM cars WHERE cylinders = 4) b USING(origin)
        ORDER BY coalesce(a.origin, b.origin)""",
    "window functions": """
        SELECT symbol, date, price,
            row_number() OVER w AS n,
            lag(price) OVER w AS before,
            round(avg(price) OVER (w ROWS BETWEEN 2 PRECEDING AND CURRENT ROW), 6) AS smooth,
            first_value(price) OVER w AS first
        FROM stocks WINDOW w AS (PARTITION BY symbol ORDER BY rowid) ORDER BY symbol, n""",
    "ranks and frames": """
        SELECT name, origin, weight, rank() OVER (PARTITION BY origin ORDER BY weight DESC) AS r,
            ntile(4) OVER (ORDER BY weight, name, rowid) AS quarter,
            sum(weight) FILTER (WHERE cylinders > 4) OVER (PARTITION BY origin) AS heavy
        FROM cars ORDER BY origin, r, name, rowid LIMIT 100""",
    "plain cte": """
        WITH by_month AS (SELECT substr(date, 1, 7) AS month, * FROM weather),
             wet AS (SELECT month, count(*) AS days FROM by_month WHERE rain > 0 GROUP BY month)
        SELECT month, days, max(warmest) AS warmest FROM by_month JOIN wet USING(month)
        GROUP BY month ORDER BY month""",
    "recursive cte: dry spells": """
        WITH RECURSIVE spell(start, day, length) AS (
            SELECT date, date, 1 FROM weather WHERE rain = 0
                AND (SELECT rain FROM weather p WHERE p.date = date(weather.date, '-1 day')) > 0
            UNION ALL
            SELECT start, date(day, '+1 day'), length + 1 FROM spell
            WHERE (SELECT rain FROM weather n WHERE n.date = date(spell.day, '+1 day')) = 0
        )
        SELECT start, max(length) AS days FROM spell GROUP BY start
        ORDER BY days DESC, start LIMIT 10""",
    "recursive cte: words of a name": """
        WITH RECURSIVE word(word, rest) AS (
            SELECT NULL, name || ' ' FROM airports
            UNION ALL
            SELECT substr(rest, 1, instr(rest, ' ') - 1), substr(rest, instr(rest, ' ') + 1)
            FROM word WHERE rest <> ''
        )
        SELECT word, count(*) AS times FROM word WHERE length(word) > 2 GROUP BY word
        ORDER BY times DESC, word LIMIT 25""",
    "full text": """
        SELECT iata, name, city, round(bm25(found), 6) AS score FROM found
        WHERE found MATCH 'municipal AND (lake OR springs)' ORDER BY score, iata""",
    "full text with marks": """
        SELECT iata, highlight(found, 1, '[', ']'), snippet(found, -1, '<', '>', '..', 3)
        FROM found WHERE found MATCH 'name: intern* NOT city: new' ORDER BY iata""",
    "json out": """
        SELECT json_group_object(origin, makes) FROM (
            SELECT origin, json_group_array(name) AS makes FROM (
                SELECT DISTINCT origin, name FROM cars WHERE cylinders = 3 ORDER BY origin, name
            ) GROUP BY origin ORDER BY origin)""",
    "json in": """
        WITH car AS (SELECT name, json_object('power', json_array(horsepower, weight),
            'place', json_object('origin', origin)) AS doc FROM cars)
        SELECT name, doc ->> '$.place.origin' AS origin, doc -> 'power' AS power,
            each.key, each.value, each.type
        FROM car, json_each(car.doc, '$.power') AS each ORDER BY name, car.doc, each.key
        LIMIT 200""",
    "case and aggregates": """
        SELECT CASE WHEN warmest >= 25 THEN 'hot' WHEN warmest >= 15 THEN 'mild' ELSE 'cold' END
            AS feel, count(*) AS days, sum(kind = 'rain') AS rainy, min(date), max(date),
            total(rain = 0) AS dry, round(avg(wind), 4) AS wind
        FROM weather GROUP BY feel ORDER BY days DESC""",
    "set operations": """
        SELECT state FROM airports WHERE latitude > 47 EXCEPT SELECT state FROM airports
        WHERE latitude < 40 UNION SELECT upper('end') ORDER BY 1""",
    "correlated exists": """
        SELECT DISTINCT state FROM airports a WHERE NOT EXISTS
            (SELECT 1 FROM airports b WHERE b.state = a.state AND b.name LIKE '%International%')
        ORDER BY state""",
    "nulls come first": "SELECT city, state, iata FROM airports ORDER BY 2, 1, 3 LIMIT 20",
    "nothing found": "SELECT * FROM cars WHERE cylinders = 7",
    "dates": """
        SELECT strftime('%Y', date) AS year, sum(julianday(date) % 2 > 0.5) AS odd, count(*)
        FROM weather GROUP BY year ORDER BY year""",
    "blobs and types": """
        SELECT typeof(miles_per_gallon) AS type, count(*), quote(max(name)) FROM cars
        GROUP BY type ORDER BY type""",
}


@pytest.mark.parametrize("about", QUESTIONS)
def test_answers_as_plain_sqlite3_does(loaded: Loaded, about: str) -> None:
    asked = loaded.judge.execute(QUESTIONS[about])
    columns = [column[0] for column in asked.description]
    rows = [list(row) for row in asked]
    assert rows or about == "nothing found"
    answer = loaded.client.sql(QUESTIONS[about])
    assert answer.status == 200, answer
    assert answer.json["columns"] == columns
    assert answer.json["rows"] == rows
    assert "truncated" not in answer.json


CHANGES = {
    "upsert": """
        INSERT INTO weather(date, rain, warmest, coldest, wind, kind)
        SELECT '2015-12-31', 1.5, 9, 1, 2, 'rain' WHERE true
        UNION ALL SELECT '2016-01-01', 0, 7, -1, 3, 'sun'
        ON CONFLICT(date) DO UPDATE SET rain = rain + excluded.rain, kind = 'both'""",
    "update from": """
        UPDATE airports SET city = city || ' (' || n || ')'
        FROM (SELECT state AS s, count(*) AS n FROM airports GROUP BY state)
        WHERE state = s AND state IN ('RI', 'DE')""",
    "delete": "DELETE FROM stocks WHERE price < (SELECT avg(price) FROM stocks)",
    "replace": "REPLACE INTO airports SELECT iata, 'renamed', city, state, country, 0.5, -0.5"
    " FROM airports WHERE state = 'HI'",
}


@pytest.mark.parametrize("about", CHANGES)
def test_changes_the_same_rows_as_plain_sqlite3(loaded: Loaded, about: str) -> None:
    changed = loaded.judge.execute(CHANGES[about]).rowcount
    assert changed > 0
    assert loaded.client.sql(CHANGES[about]).json == {"rows_affected": changed}
    for table in ("airports", "stocks", "weather"):
        everything = f"SELECT * FROM {table} ORDER BY 1, 2, 3"
        rows = [list(row) for row in loaded.judge.execute(everything)]
        assert loaded.client.sql(everything).rows == rows


def test_returning_gives_the_same_rows(loaded: Loaded) -> None:
    sql = "UPDATE cars SET weight = weight + 1 WHERE origin = 'Europe' RETURNING name, weight, year"
    rows = [list(row) for row in loaded.judge.execute(sql)]
    answer = loaded.client.sql(sql)
    assert sorted(answer.rows) == sorted(rows)
    assert answer.json["rows_affected"] == len(rows)
