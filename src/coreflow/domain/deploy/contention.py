"""Contention with other writers: what this process wrote, who undid it, and how long to wait before it is written again.

Two writers that each revert the other's writes would go on for ever, as fast as they can. A Swarm has no lock, so the
evidence is what passes observe: a service was as desired, and is no longer, although the desired spec is the same and this
process wrote nothing. The first time it is reverted at once, then with growing pauses. What Swarm does by itself (a
roll-out, a roll-back) does not count.
"""

from collections.abc import Collection, Mapping

from attrs import Factory, evolve, frozen

from coreflow.domain.ids import Owner
from coreflow.domain.swarm import naming
from coreflow.domain.swarm.observed import ROLLED_BACK, Observed, ObservedService
from coreflow.domain.swarm.specs import Fingerprint, ServiceSpec

PAUSES = (0.0, 0.0, 10.0, 60.0, 600.0)
"""Seconds between our last write and the next, by how often it was undone: the first answer comes at once."""
CALM_SECONDS = 1800.0
"""A service that nobody touched for so long starts anew."""
REPEATED = 2
"""So many times are a quarrel; once may have been a hand."""
ABSENT = Fingerprint("")
"""The intent of a service that is not wanted."""


@frozen(kw_only=True)
class Written:
    """One service, by name: what we want it to be, when we last wrote it, and how often somebody undid that."""

    intent: Fingerprint
    owner: Owner
    at: float = 0.0
    """When we wrote it, by the engine's clock; 0 if it was as we want when we first saw it."""
    version: int = 0
    """The version that the write replaced: what a list shows of an earlier one is old."""
    stands: bool = True
    """Whether it was as we want it after the last time that it was undone."""
    times: int = 0
    """How often somebody undid it."""
    undone_at: float = 0.0
    by: str = ""
    """Who did so, as far as can be told."""
    tried: bool = False
    """Whether this process wrote this intent."""
    attempts: int = 0
    """How often this process wrote this intent and it was not undone by somebody else: more than once after roll-backs."""

    @property
    def is_contested(self) -> bool:
        """Return whether somebody undid it again and again."""
        return self.times >= REPEATED

    @property
    def due(self) -> float:
        """Return when it may be written again, by the engine's clock."""
        return self.at + PAUSES[min(self.times, len(PAUSES) - 1)]


@frozen(kw_only=True)
class WriteLog:
    """The writes and looks of one process, by the names of services."""

    entries: Mapping[str, Written] = Factory(dict)
    mounted: frozenset[str] = frozenset()
    """Names of secrets that were seen mounted: nobody has yet to use them for the first time."""

    def seen(
        self,
        wanted: Mapping[str, ServiceSpec],
        observed: Observed,
        cluster: str,
        left_alone: Collection[str] = (),
    ) -> "WriteLog":
        """The log after one more look. `left_alone` are names of services about which nothing is said now."""
        live = {s.name: s for s in observed.services if s.cluster == cluster}
        entries = self._remembered(wanted, live, observed.time)
        for name, spec in wanted.items():
            if name not in left_alone:
                entry = _look(self.entries.get(name), spec, live.get(name), observed.time)
                if entry is not None:
                    entries[name] = entry
        for name in live.keys() - wanted.keys() - set(left_alone):
            entry = self.entries.get(name)
            if entry is not None and entry.intent == ABSENT and entry.stands:
                entries[name] = _undone(entry, observed.time, _author(live[name], "makes it again"))
        named = self.mounted.union(*(service.named_secrets for service in live.values()))
        return WriteLog(entries=entries, mounted=named & {secret.name for secret in observed.secrets})

    def _remembered(
        self, wanted: Mapping[str, ServiceSpec], live: Mapping[str, ObservedService], now: float
    ) -> dict[str, Written]:
        """The entries of what is there or wanted, or was not long ago."""
        return {
            name: entry
            for name, entry in self.entries.items()
            if name in live or name in wanted or now - max(entry.at, entry.undone_at) < CALM_SECONDS
        }

    def wrote(self, spec: ServiceSpec, now: float, version: int = 0) -> "WriteLog":
        """The log with a write of this spec over that version in it."""
        old = self.entries.get(spec.name)
        fresh = Written(intent=spec.fingerprints.whole, owner=spec.owner)
        same = old is not None and old.intent == fresh.intent
        entry = evolve(
            old if old is not None and same else fresh, at=now, version=version, stands=True, tried=True
        )
        entry = evolve(entry, attempts=entry.attempts + 1)
        return evolve(self, entries={**self.entries, spec.name: entry})

    def removed(self, service: ObservedService, now: float) -> "WriteLog":
        """The log with the removal of a service in it."""
        old = self.entries.get(service.name)
        is_same = old is not None and old.intent == ABSENT
        entry = old if old is not None and is_same else Written(intent=ABSENT, owner=service.owner)
        return WriteLog(
            entries={**self.entries, service.name: evolve(entry, at=now, stands=True, tried=True)}
        )

    def entry(self, name: str, intent: Fingerprint = ABSENT) -> Written | None:
        """Return what is known of a service with this intent; without one, of a service that is not wanted."""
        entry = self.entries.get(name)
        return entry if entry is not None and entry.intent == intent else None

    def tried_other(self, name: str, intent: Fingerprint) -> bool:
        """Return whether the last that this process wrote there was something else."""
        entry = self.entries.get(name)
        return entry is not None and entry.tried and entry.intent not in {intent, ABSENT}

    def forget_attempts(self) -> "WriteLog":
        """The log as if nothing had been tried: somebody asks for another try."""
        entries = {name: evolve(entry, tried=False, attempts=0) for name, entry in self.entries.items()}
        return evolve(self, entries=entries)


NOTHING_WRITTEN = WriteLog()


def _look(
    entry: Written | None, spec: ServiceSpec, live: ObservedService | None, now: float
) -> Written | None:
    """One wanted service after one more look."""
    intent = spec.fingerprints.whole
    is_same = entry is not None and entry.intent == intent
    if live is not None and live.seal == spec.seal:
        if entry is None or not is_same:
            return Written(intent=intent, owner=spec.owner)
        if entry.times and now - max(entry.undone_at, entry.at) >= CALM_SECONDS:
            return evolve(entry, times=0, by="", stands=True)
        return entry if entry.stands else evolve(entry, stands=True)
    if entry is None or not is_same:
        return entry
    if not entry.stands or (live is not None and _is_nobodys(entry, spec, live)):
        return entry
    if live is None:
        return _undone(entry, now, "somebody removes it")
    return _undone(entry, now, _author(live, "changes it", spec))


def _is_nobodys(entry: Written, spec: ServiceSpec, live: ObservedService) -> bool:
    """Return whether a difference is not somebody's doing: an old list, Swarm's own roll-back, a restore, or only the login's."""
    return (
        live.version <= entry.version
        or live.is_stopped
        or live.update_state in ROLLED_BACK
        or live.labels.get(naming.FAILED) == spec.fingerprints.whole
        or (live.intent == spec.fingerprints.whole == live.fingerprints.whole and live.owner == spec.owner)
    )


def _undone(entry: Written, now: float, by: str) -> Written:
    return evolve(entry, stands=False, times=entry.times + 1, undone_at=now, by=by, attempts=0)


def _author(live: ObservedService, what: str, spec: ServiceSpec | None = None) -> str:
    """Return who wrote a live service, by its labels: a hand leaves our intent on it, another coreflow its own."""
    if spec is not None and live.intent == spec.fingerprints.whole:
        return f"somebody {what} by hand"
    writer = live.labels.get(naming.WRITER)
    return f"another coreflow with other records ({writer}) {what}" if writer else f"another coreflow {what}"
