"""The seed of this run of the tests: a new one every time, unless `COREFLOW_TEST_SEED` repeats an earlier one.

All processes of a run have the same one: the first that needs it leaves it in the environment of those that it starts.
"""

import os
import random

VARIABLE = "COREFLOW_TEST_SEED"
IS_GIVEN = VARIABLE in os.environ
"""Whether an earlier run is repeated."""
SEED = int(os.environ.setdefault(VARIABLE, str(random.SystemRandom().randrange(2**32))))


def dice(purpose: str) -> random.Random:
    """What a test may draw from: other draws for each purpose, the same ones again under the same seed."""
    return random.Random(f"{SEED} {purpose}")
