"""Secret bundles -> the bytes of `secret.json`.

A bundle chooses groups; a group is one variable with a value per environment. Among groups with the same key the
higher priority wins, and among equals the later one. Additional bundles come first, the main bundle on top of them, and
what a provisioned binding returned below both: what an operator wrote wins.
"""

from collections.abc import Iterable, Mapping

from attrs import field, frozen

from coreflow.domain.records.models import SecretBundleRecord, SecretGroupRecord, Tag
from coreflow.domain.swarm.images import Rejected
from coreflow.domain.swarm.specs import canonical

PAYLOAD_LIMIT = 500_000
"""Docker takes secrets of less than 500 KB (source: swarmkit's `MaxSecretSize`)."""


@frozen
class Layer:
    """The variables that one bundle gives in one environment, and remarks on groups that give none."""

    bundle: SecretBundleRecord
    groups: tuple[SecretGroupRecord, ...]
    values: Mapping[str, str] = field(repr=False)
    notes: tuple[str, ...] = ()


@frozen
class Payload:
    """The content of a secret, and what was noteworthy about it (names only)."""

    data: bytes
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Payload({len(self.data)} bytes)"


def matches(wanted: Iterable[Tag], tags: Iterable[Tag]) -> bool:
    """Return whether any of the wanted tags is among `tags`; a wanted tag without a value matches every value."""
    present = {(tag.key, tag.value) for tag in tags}
    keys = {tag.key for tag in tags}
    return any(tag.key in keys if tag.value is None else (tag.key, tag.value) in present for tag in wanted)


def flatten(bundle: SecretBundleRecord, groups: tuple[SecretGroupRecord, ...], environment: str) -> Layer:
    """One environment's variables of a bundle's groups."""
    values: dict[str, str] = {}
    ranks: dict[str, float] = {}
    notes: list[str] = []
    for group in groups:
        value = group.environments.get(environment)
        if value is None:
            notes.append(f"secret group {group.id} has no value for environment {environment}: left out")
            continue
        rank = group.priority or 0.0
        if group.key not in ranks or rank >= ranks[group.key]:
            values[group.key], ranks[group.key] = value.value, rank
    return Layer(bundle, groups, values, tuple(notes))


def make_payload(layers: Iterable[Layer], provisioned: Mapping[str, str]) -> Payload:
    """The merged variables as JSON. Layers come in rising order of precedence: the main bundle last.

    Raises Rejected when the result is too large for a Docker secret.
    """
    merged = dict(provisioned)
    notes: list[str] = []
    for layer in layers:
        notes += layer.notes
        if provisioned:
            notes += [
                f"secret bundle overrides the provisioned {key}" for key in layer.values if key in provisioned
            ]
        merged.update(layer.values)
    data = canonical(merged)
    if len(data) >= PAYLOAD_LIMIT:
        raise Rejected(f"secret.json has {len(data)} bytes; Docker takes less than {PAYLOAD_LIMIT}")
    return Payload(data, tuple(notes))
