"""Secret bundles -> the bytes of `secret.json`.

A bundle chooses groups; a group is one variable with a value per environment. Among groups with the same key the
higher priority wins, and among equals the later one. Additional bundles come first, the main bundle on top of them, and
what a provisioned binding returned below both: what an operator wrote wins.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

from attrs import field, frozen

from coreflow.domain.records.models import SecretBundleRecord, SecretGroupRecord, Tag
from coreflow.domain.swarm.images import Rejected
from coreflow.domain.swarm.specs import canonical

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,30}")
NAMES_SHOWN = 5
ENVIRONMENTS_TRIED = 20
PAYLOAD_LIMIT = 500_000
"""Docker takes secrets of less than 500 KB (source: swarmkit's `MaxSecretSize`)."""


@frozen
class Layer:
    """The variables that one bundle gives in one environment, and remarks on groups that give none."""

    bundle: SecretBundleRecord
    groups: tuple[SecretGroupRecord, ...]
    values: Mapping[str, str] = field(repr=False)
    notes: tuple[str, ...] = ()
    environment: str = ""
    omitted: tuple[SecretGroupRecord, ...] = ()
    """The groups without a value in this environment."""


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


def flatten(
    bundle: SecretBundleRecord,
    groups: tuple[SecretGroupRecord, ...],
    environment: str,
    instead: str | None = None,
) -> Layer:
    """One environment's variables of a bundle's groups; of groups without it, those of the environment `instead`."""
    values: dict[str, str] = {}
    ranks: dict[str, float] = {}
    omitted: list[SecretGroupRecord] = []
    for group in groups:
        value = group.environments.get(environment)
        if value is None and instead is not None:
            value = group.environments.get(instead)
        if value is None:
            omitted.append(group)
            continue
        rank = group.priority or 0.0
        if group.key not in ranks or rank >= ranks[group.key]:
            values[group.key], ranks[group.key] = value.value, rank
    notes = tuple(f"{no_value(group, environment)}: left out; {other_values(group)}" for group in omitted)
    return Layer(bundle, groups, values, notes, environment, tuple(omitted))


def no_value(group: SecretGroupRecord, environment: str) -> str:
    """Say that a group has no value in an environment."""
    return f"secret group {group.id} has no value for environment {environment}"


def other_values(group: SecretGroupRecord) -> str:
    """The environments that a group has values for. One that is not like a name may be a slip with a secret in it."""
    names = sorted(group.environments)
    shown = [name for name in names if _NAME.fullmatch(name)][:NAMES_SHOWN]
    rest = len(names) - len(shown)
    more = f"{rest} other{'' if rest == 1 else 's'}"
    return f"it has values for: {', '.join((*shown, *([more] if rest else [])))}" if names else "it has none"


def as_elsewhere(layers: Iterable[Layer]) -> Iterator[tuple[str, tuple[Layer, ...]]]:
    """Yield the layers as they were if what is left out had been meant for another environment, for each of these."""
    layers = tuple(layers)
    names = sorted({name for layer in layers for group in layer.omitted for name in group.environments})
    for name in names[:ENVIRONMENTS_TRIED]:
        yield (
            name,
            tuple(
                flatten(layer.bundle, layer.groups, layer.environment, name) if layer.omitted else layer
                for layer in layers
            ),
        )


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
