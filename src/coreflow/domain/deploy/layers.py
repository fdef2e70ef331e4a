"""The secret bundles of services as layers, kept for as long as bundle and groups are the same objects."""

from collections.abc import Iterator
from operator import is_

from coreflow.domain.ids import BundleId
from coreflow.domain.records.models import Records, SecretBundleRecord, SecretGroupRecord, ServiceRecord
from coreflow.domain.swarm.images import missing

from .secrets import Layer, flatten, matches


class Layers:
    """The layers of bundles, over many renderings."""

    def __init__(self, environment: str) -> None:
        self._environment = environment
        self._known: dict[BundleId, Layer] = {}

    def of(self, records: Records) -> "BundleLayers":
        """The layers of these records' bundles."""
        return BundleLayers(records, self._environment, self._known)


class BundleLayers:
    """The layers of one rendering; each bundle is looked at once."""

    def __init__(self, records: Records, environment: str, known: dict[BundleId, Layer]) -> None:
        self._records, self._environment, self._layers = records, environment, known
        self._looked_at: dict[BundleId, tuple[Layer | None, tuple[str, ...]]] = {}
        self._all_groups = tuple(records.secret_groups.values())

    def of_service(self, service: ServiceRecord, problems: list[str]) -> Iterator[Layer]:
        """Yield what the bundles of a service give, the main one last; what is missing goes to `problems`."""
        main = (service.secret_bundle_id,) if service.secret_bundle_id else ()
        for identity in (*service.additional_secret_bundle_ids, *main):
            known = self._looked_at.get(identity)
            if known is None:
                known = self._looked_at[identity] = self._look_at(identity)
            layer, missing_records = known
            problems += missing_records
            if layer is not None:
                yield layer

    def forget_unused(self) -> None:
        """Drop what was kept of bundles that no service mentions any more."""
        for identity in self._layers.keys() - self._looked_at.keys():
            del self._layers[identity]

    def _look_at(self, identity: BundleId) -> tuple[Layer | None, tuple[str, ...]]:
        """The layer of one bundle: the same object as last time while bundle and groups are the same objects."""
        bundle = self._records.secret_bundles.get(identity)
        if bundle is None:
            return None, (missing("secret bundle", identity, self._records),)
        problems: list[str] = []
        groups = tuple(self._groups(bundle, problems))
        layer = self._layers.get(identity)
        if (
            layer is None
            or layer.bundle is not bundle
            or len(layer.groups) != len(groups)
            or not all(map(is_, layer.groups, groups))
        ):
            layer = self._layers[identity] = flatten(bundle, groups, self._environment)
        return layer, tuple(problems)

    def _groups(self, bundle: SecretBundleRecord, problems: list[str]) -> Iterator[SecretGroupRecord]:
        if not bundle.included_secret_group_ids and bundle.included_tags:
            yield from (g for g in self._all_groups if matches(bundle.included_tags, g.tags))
        groups = self._records.secret_groups
        for identity in bundle.included_secret_group_ids:
            group = groups.get(identity)
            if group is None:
                text = missing("secret group", identity, self._records)
                problems.append(f"{text} (in secret bundle {bundle.id})")
            else:
                yield group
