"""The short form: as many rounds of faults as fit into two minutes, by a seed it prints."""

import os
import random

import pytest

from tests.chaos.faults import FAULTS
from tests.chaos.rounds import run

SECONDS = float(os.environ.get("CHAOS_S") or 120)


@pytest.mark.timeout(SECONDS + 120)
def test_nothing_breaks_it() -> None:
    seed = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(1 << 31))
    report = run(1000, SECONDS, seed)
    print(report)
    assert not report.breaches, report
    assert not report.leaks, report
    assert report.rounds >= 10, report
    assert report.acknowledged > 100, report
    assert report.went_back > 10, report
    assert set(report.faults) <= set(FAULTS)
