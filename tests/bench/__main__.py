"""`python -m tests.bench`: measure walkin and its peers side by side; write tests/bench/results/.

The crowd is made first, and lies there while the rest is measured until it has expired.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from tests.bench import alone, life, machine, report, workloads
from tests.bench.crowd import Crowd
from tests.bench.guests import all_peers
from tests.bench.run import LONG, SHORT, Run
from tests.handles import ROOT, open_folder

_CROWD = "crowd"


def steps(run: Run) -> Mapping[str, Callable[[], None]]:
    """Everything that is measured between the two ends of the crowd, by the name of its row."""
    asked = {
        workload.row: partial(workloads.ask_again_and_again, run, workload)
        for workload in workloads.WORKLOADS
    }
    return asked | {
        "create": partial(workloads.create, run),
        "session": partial(workloads.hold_sessions, run),
        "reopen": partial(alone.reopen, run),
        "cell": partial(alone.weigh_cells, run),
        "life": partial(life.live, run),
        "bombs": partial(alone.beside_bombs, run),
    }


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--short", action="store_true", help="once, a second each: for CI")
    parser.add_argument("--offline", action="store_true", help="only peers that were fetched")
    parser.add_argument("--only", metavar="ROW", help="one row (see results.json)")
    parser.add_argument("--out", type=Path, default=ROOT / "tests/bench/results")
    asked = parser.parse_args(words)
    if shutil.which("wrk") is None:
        parser.error("wrk is not installed")
    began = time.monotonic()
    with open_folder() as folder:
        run = Run(SHORT if asked.short else LONG, folder)
        where = machine.describe(folder, words)
        chosen = steps(run)
        if asked.only and asked.only not in (*chosen, _CROWD):
            parser.error(f"--only takes one of {', '.join((*chosen, _CROWD))}")
        peers = all_peers()
        crowd = Crowd(run) if asked.only in (None, _CROWD) else None
        try:
            if crowd:
                crowd.gather()
            if asked.only != _CROWD:
                run.invite(peers, fetch=not asked.offline)
            for row, step in chosen.items():
                if asked.only in (None, row):
                    print(f"{row} ({time.monotonic() - began:.0f} s)", flush=True)
                    step()
            if crowd:
                print(f"removal ({time.monotonic() - began:.0f} s)", flush=True)
                crowd.disperse()
        finally:
            run.dismiss()
            if crowd:
                crowd.stop()
        where["took"] = f"{time.monotonic() - began:.0f} s"
        report.write(run, peers, where, asked.out)
    print("\n".join(report.bar_lines(run)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
