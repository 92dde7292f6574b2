"""Loaded by Python itself where this folder is on PYTHONPATH: makes a zygote's cells traitors.

Only `python -m sandbox` is changed; front desk, reaper and supervisor stay what they are.
"""

import sys

if "sandbox" in sys.orig_argv:
    from tests.hostile import traitor

    traitor.install()
