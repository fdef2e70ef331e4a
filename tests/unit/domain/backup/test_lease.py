"""Who may have the lease of a stopped service, and the commands that help where nobody has it."""

import shlex

import pytest
from attrs import evolve

from coreflow.domain.backup.lease import DAEMON, Claim, Lease, claim, help_for, read_lease
from coreflow.domain.backup.parts import Part
from coreflow.domain.ids import NodeId
from coreflow.domain.swarm.stopped import NOBODY, undo_id

LEASE = Lease(id="0123456789abcdef", backup_id="b1", owner="command-1")
UNDO = undo_id(LEASE.id)
DAEMONS = (f"{DAEMON}-a", f"{DAEMON}-b")


@pytest.mark.parametrize(
    ("held_by", "owner", "unchanged_for", "wants", "granted"),
    [
        ("command-1", "command-1", 0, "b1", Claim.MINE),
        (NOBODY, "command-2", 0, "b1", Claim.FREE),
        (NOBODY, DAEMONS[0], 0, None, Claim.FREE),
        ("command-1", "command-2", 59, "b1", Claim.TAKEN),
        ("command-1", "command-2", 60, "b1", Claim.FREE),
        ("command-1", "command-2", 0, UNDO, Claim.OUTRANKED),
        ("command-1", DAEMONS[0], 0, UNDO, Claim.OUTRANKED),
        ("command-1", DAEMONS[0], 0, None, Claim.TAKEN),
        (DAEMONS[0], DAEMONS[1], 0, None, Claim.FREE),
        (DAEMONS[0], "command-1", 0, "b2", Claim.OUTRANKED),
        (DAEMONS[0], "command-1", 0, None, Claim.TAKEN),
        (DAEMONS[0], "command-1", 60, None, Claim.FREE),
    ],
)
def test_claims(held_by: str, owner: str, unchanged_for: float, wants: str | None, granted: Claim) -> None:
    """By who has it, who wants it and what for, and for how long it was not renewed."""
    lease = evolve(LEASE, owner=held_by)
    assert claim(lease, owner, unchanged_for, seconds=60, wants=wants) is granted
    assert granted.is_granted is (granted is not Claim.TAKEN)


def test_a_competing_owner_is_no_predecessor() -> None:
    """Two daemons that took leases from each other would never end."""
    lease = evolve(LEASE, owner=DAEMONS[0])
    assert claim(lease, DAEMONS[1], 0, seconds=60, competing={DAEMONS[0]}) is Claim.TAKEN


@pytest.mark.parametrize(("unchanged_for", "granted"), [(0, Claim.TAKEN), (60, Claim.FREE)])
def test_a_lease_that_cannot_be_read_is_waited_for(unchanged_for: float, granted: Claim) -> None:
    """A newer version may be at it."""
    assert read_lease("nonsense") is None
    assert claim(None, "command-1", unchanged_for, seconds=60, wants=UNDO) is granted


@pytest.mark.parametrize("backup_id", ["b1", "a b", "`id`", "it's; rm -rf /"])
def test_commands_can_be_pasted(backup_id: str) -> None:
    """Whatever a backup is called."""
    text = help_for("shop", evolve(LEASE, backup_id=backup_id, has_begun=True), 3)
    assert f"`coreflow restore shop --backup {UNDO}`" in text
    again = text.split("; `")[1].rpartition("` tries")[0] if "rm" not in backup_id else ""
    assert not again or shlex.split(again)[-1] == backup_id
    assert f"--backup {shlex.quote(backup_id)}` tries it again" in text
    assert "--replicas 3 shop` starts it as it is" in text


def test_a_note_is_read_back_from_its_label() -> None:
    part = Part(kind="volume", name="data", snapshot_id="s1", node=NodeId("n1"))
    lease = evolve(LEASE, heartbeat=7, has_begun=True, is_whole=True, parts=(part,))
    assert read_lease(lease.label()) == lease
    assert read_lease(LEASE.label()) == LEASE
