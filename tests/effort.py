"""How many examples random tests try: a quarter by default, all of them where `COREFLOW_TEST_THOROUGH` is set, as in CI.

Seeds are new in every run, so that many quick ones try as much as a thorough one.
"""

import os

VARIABLE = "COREFLOW_TEST_THOROUGH"
IS_THOROUGH = bool(os.environ.get(VARIABLE))
_QUICK_SHARE = 4
_FEWEST = 10


def examples(thorough: int) -> int:
    """How many examples to try in this run, of those that a thorough one tries."""
    return thorough if IS_THOROUGH else min(thorough, max(_FEWEST, thorough // _QUICK_SHARE))
