"""`python -m tests.chaos`: hurt a service in so many rounds; exit status 1 if anything broke."""

import argparse
import random
import sys

from tests.chaos.rounds import run

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)
    report = run(asked.rounds, asked.seconds, asked.seed)
    print(report)
    sys.exit(bool(report.breaches or report.leaks))
