"""A statement of our own: how the gate lends what looks into a database to those who look.

Runs in: cells. Standard library only.
"""

from collections.abc import Callable
from typing import Any

#: Runs one statement with these values to bind, and returns its rows. Raises apsw.Error.
Ours = Callable[..., list[tuple[Any, ...]]]
