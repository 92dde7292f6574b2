"""The list of files that somebody may bring as a database: those to be taken, and all the others.

Each is made when it is asked for, and always the same.
"""

from tests.hostile import files_bytes, files_schema, files_valid
from tests.hostile.files_making import Make

#: Damaged or malicious.
FILES: dict[str, Make] = {**files_bytes.CASES, **files_schema.CASES}
#: Sound; each must be taken.
VALID: dict[str, Make] = files_valid.CASES
#: Those of FILES that SQLite copes with, and that name nothing forbidden: taken or refused.
HARMLESS: frozenset[str] = frozenset(
    {
        # The header's count of pages holds, and what lies behind is left behind.
        "one page long",
        # Older SQLites wrote these, or this one does not look: it takes what is usual.
        "write version 3",
        "versions 0",
        "page count 0",
        "schema format 0",
        "encoding 0",
        "encoding 4",
        # A suggestion, and bytes that nobody reads.
        "cache size of all",
        "reserved for expansion",
    }
)
