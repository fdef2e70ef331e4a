"""What is said of a service that is stopped for a restore, by what its lease says."""

import orjson
import pytest
from tests.unit.domain.examples import live, spec

from coreflow.domain.swarm import naming
from coreflow.domain.swarm.convergence import judge
from coreflow.domain.swarm.stopped import UNDER_WAY, told

LEASE = {"id": "0123456789abcdef", "backupId": "b 1", "holder": "command-1", "hasBegun": False}
UNDO = "`coreflow restore web --backup before-0123456789ab`"
AGAIN = "`coreflow restore web --backup 'b 1'` tries it again"
START = "`docker service update --label-rm serve.zone.stopped --label-rm serve.zone.restore --replicas 3 web`"


@pytest.mark.parametrize(
    ("lease", "expected"),
    [
        (LEASE, UNDER_WAY),
        (LEASE | {"hasBegun": True}, f"{UNDER_WAY}; should it hang: {UNDO}"),
        (
            LEASE | {"holder": ""},
            f"stopped by a restore of backup b 1 that could not be finished: {AGAIN}; {START} starts it as it is",
        ),
        (
            LEASE | {"holder": "", "hasBegun": True},
            (
                "stopped by a restore of backup b 1 that could not be finished:"
                f" {UNDO} puts back what was there before; {AGAIN}; {START} starts it as it is"
            ),
        ),
        (LEASE | {"id": 7}, UNDER_WAY),
        (LEASE | {"backupId": None}, UNDER_WAY),
        ([], UNDER_WAY),
    ],
)
def test_what_is_said(lease: object, expected: str) -> None:
    """That it waits; what helps is said once something may be overwritten, or nobody has the lease."""
    labels = {naming.STOPPED: "3", naming.RESTORE: orjson.dumps(lease).decode()}
    service = live(spec(), labels=labels)
    assert told(service) == expected
    verdict = judge(service, [], [])
    assert (verdict.wanted, verdict.running, verdict.done, verdict.detail) == (3, 0, False, expected)


def test_a_lease_that_is_no_json() -> None:
    assert told(live(spec(), labels={naming.STOPPED: "3", naming.RESTORE: "{"})) == UNDER_WAY
