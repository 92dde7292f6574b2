"""How long the fuzzers run, and from which seed: FUZZ_S and FUZZ_SEED in the environment.

A fuzzer is a run of rounds, each with a seed of its own, until its time is up. A round that fails
prints its seed; `FUZZ_SEED=<that seed>` runs this one round again and nothing else.
"""

import os
import secrets
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

#: Seconds for the fuzzer of SQL, of which each other one has a share: `make fuzz` has ten minutes.
FUZZ_S = float(os.environ.get("FUZZ_S", "10"))
_SEED = os.environ.get("FUZZ_SEED")

#: What a test needs besides: a service to start, the last calls, the looks at the end.
timeout = pytest.mark.timeout(FUZZ_S + 90)

# What fails depends on what a database has been through, so there is nothing to shrink.
ROUND = settings(
    phases=[Phase.generate],
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def run_rounds(
    made: SearchStrategy[Any], act: Callable[[Any], None], share: float = 1.0, examples: int = 300
) -> int:
    """Give `act` one example after the other for this share of the time; return how many."""
    give_up = time.monotonic() + FUZZ_S * share
    count = 0

    def one(example: Any) -> None:
        nonlocal count
        # Seconds after the end hypothesis would still make the rest of its round.
        if _SEED is not None or time.monotonic() < give_up:
            act(example)
            count += 1

    while True:
        number = int(_SEED) if _SEED is not None else secrets.randbits(32)
        try:
            seed(number)(settings(ROUND, max_examples=examples)(given(made)(one)))()
        except BaseException:
            print(f"to see this round again: FUZZ_SEED={number}")
            raise
        if _SEED is not None or time.monotonic() >= give_up:
            return count
