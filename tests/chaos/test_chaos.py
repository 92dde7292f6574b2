"""The short form: as many rounds of faults as fit into 40 s, by a seed it prints."""

import os
import random

from tests.chaos.faults import FAULTS
from tests.chaos.rounds import run


def test_nothing_breaks_it() -> None:
    seed = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(1 << 31))
    seconds = float(os.environ.get("CHAOS_S") or 40)
    report = run(1000, seconds, seed)
    print(report)
    assert not report.breaches, report
    assert not report.leaks, report
    assert report.rounds >= 10, report
    assert report.acknowledged > 100, report
    assert set(report.faults) <= set(FAULTS)
