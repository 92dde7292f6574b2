"""Words of other databases' SQL, and what SQLite has in their place.

Runs in: cells. Standard library only. Only what is sure to help is said.
"""

from itertools import pairwise

from sandbox.tokens import Token

#: By the token at which SQLite stopped.
_AT = {
    "AUTO_INCREMENT": "INTEGER PRIMARY KEY numbers its rows by itself",
    "IDENTITY": "INTEGER PRIMARY KEY numbers its rows by itself",
    "ILIKE": "LIKE takes no notice of the case of ASCII letters",
    "ENGINE": "leave out MySQL's options of a table",
    "INTERVAL": "dates are moved by a modifier: date('now', '+1 day')",
    "FETCH": "SQLite has LIMIT",
    "MODIFY": "a column cannot be changed so: make a new table and copy the rows",
    "DUPLICATE": "SQLite has INSERT ... ON CONFLICT (column) DO UPDATE SET ...",
    "SIMILAR": "SQLite has GLOB and LIKE",
    "UNNEST": "json_each(?) makes rows of a JSON array",
    ":": "SQLite has CAST(value AS type)",
}
#: By the word that a statement begins with.
_BEGINNING = {
    "SHOW": "GET /schema tells of all tables; so does SELECT name, sql FROM sqlite_schema",
    "DESCRIBE": "PRAGMA table_info(name) tells of a table, GET /schema of all",
    "DESC": "PRAGMA table_info(name) tells of a table, GET /schema of all",
    "TRUNCATE": "DELETE FROM name empties a table",
    "USE": "there is one database for each token, and no other to be used",
    "GRANT": "there are no users: whoever has the token may do everything",
    "CALL": "there are no procedures",
    "EXEC": "there are no procedures",
    "DECLARE": "there are no variables: bind values with `args`",
    "SET": "there are no variables: bind values with `args`",
}
_SECOND = {
    ("CREATE", "DATABASE"): "there is one database for each token",
    ("CREATE", "SCHEMA"): "there is one schema, main",
    ("CREATE", "FUNCTION"): "there are no functions of one's own",
    ("CREATE", "PROCEDURE"): "there are no procedures",
    ("CREATE", "SEQUENCE"): "INTEGER PRIMARY KEY numbers its rows by itself",
    ("SELECT", "TOP"): "SQLite has LIMIT, at the end of the SELECT",
    ("CREATE", "TYPE"): "there are no types of one's own",
}
#: What cannot follow a comma.
_ENDING_LISTS = frozenset({")", "FROM", "WHERE", "GROUP", "ORDER", "HAVING", "LIMIT", "UNION"})
#: Words that need quotes when they are names.
_RESERVED = frozenset(
    """
    ADD ALL ALTER AND AS BETWEEN CASE CHECK COLLATE COMMIT CONSTRAINT CREATE DEFAULT DEFERRABLE
    DELETE DISTINCT DROP ELSE ESCAPE EXISTS FOREIGN FROM GROUP HAVING IN INDEX INSERT INTERSECT INTO
    IS ISNULL JOIN LIMIT NOT NOTNULL NULL ON OR ORDER PRIMARY REFERENCES SELECT SET TABLE THEN TO
    TRANSACTION UNION UNIQUE UPDATE USING VALUES WHEN WHERE
    """.split()
)
#: Words that are written wrong most.
KEYWORDS = tuple(
    sorted(
        _RESERVED
        | set(
            """
            ASC BEGIN CASCADE DESC END EXPLAIN LIKE OFFSET PRAGMA RECURSIVE REPLACE RETURNING
            TRIGGER VACUUM VIEW VIRTUAL WITH
            """.split()
        )
    )
)
#: Functions of other databases, and SQLite's nearest to each.
FUNCTIONS = {
    "array_agg": "json_group_array",
    "char_length": "length",
    "charindex": "instr",
    "convert": "cast",
    "curdate": "date",
    "current_database": "sqlite_version",
    "date_add": "date",
    "date_format": "strftime",
    "date_part": "strftime",
    "date_sub": "date",
    "date_trunc": "strftime",
    "datediff": "julianday",
    "day": "strftime",
    "from_unixtime": "datetime",
    "gen_random_uuid": "randomblob",
    "getdate": "datetime",
    "greatest": "max",
    "isnull": "ifnull",
    "json_agg": "json_group_array",
    "jsonb_agg": "jsonb_group_array",
    "least": "min",
    "left": "substr",
    "len": "length",
    "listagg": "group_concat",
    "locate": "instr",
    "month": "strftime",
    "now": "datetime",
    "nvl": "ifnull",
    "position": "instr",
    "rand": "random",
    "right": "substr",
    "split_part": "substr",
    "str_to_date": "strftime",
    "strpos": "instr",
    "substring_index": "substr",
    "to_char": "strftime",
    "to_date": "date",
    "to_timestamp": "datetime",
    "ucase": "upper",
    "unix_timestamp": "unixepoch",
    "uuid": "randomblob",
    "version": "sqlite_version",
    "year": "strftime",
}


def hint(token: str, statement: list[Token]) -> str:
    """Return what helps where SQLite stopped at `token`, empty if nothing surely does."""
    words = [part.text.upper() for part in statement[:2]]
    upper = token.upper()
    begins = bool(words) and words[0] == upper
    if begins and upper in _BEGINNING:
        found = _BEGINNING[upper]
    elif tuple(words) in _SECOND:
        found = _SECOND[words[0], words[1]]
    elif words[:1] == ["DELETE"] and words[1:] == [upper]:
        found = "DELETE FROM name WHERE ..."
    elif upper in _ENDING_LISTS and _follows_a_comma(upper, statement):
        found = f"a comma before {token} is one too many"
    elif upper in _RESERVED:
        found = f'if it is meant as a name, quote it: "{token}"'
    else:
        found = _AT.get(upper, "")
    return found


def _follows_a_comma(upper: str, statement: list[Token]) -> bool:
    pairs = pairwise(statement)
    return any(first.text == "," and then.text.upper() == upper for first, then in pairs)
