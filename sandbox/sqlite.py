"""The library itself: which SQLite it is, its randomness, and the file that it begins with.

Runs in: zygote, and cells before their jail.
"""

import apsw


def blank_database() -> bytes:
    """Return an empty database file that is in WAL mode already.

    Bytes 18 and 19 of the header are the file format versions; 2 means WAL
    (https://www.sqlite.org/fileformat2.html#file_format_version_numbers). Made once in the
    zygote, it saves each new database the switch and the rollback journal that it takes.
    """
    connection = apsw.Connection(":memory:")
    try:
        connection.execute("PRAGMA page_size=4096; PRAGMA user_version=1; PRAGMA user_version=0")
        image = bytearray(connection.serialize("main"))
    finally:
        connection.close()
    image[18:20] = b"\x02\x02"
    return bytes(image)


def versions() -> dict[str, str]:
    """Return which SQLite runs the statements, and which binding."""
    return {"sqlite": apsw.sqlite_lib_version(), "apsw": apsw.apsw_version()}


def seed_randomness() -> None:
    """Draw SQLite's random seed now: it comes from /dev/urandom, which the jail closes."""
    apsw.randomness(0)
    apsw.randomness(1)
