"""What this process knows of bindings: the values that Corestore gave, kept in memory, and what Cloudly was told.

Values are asked for once per process and at every refresh; asking again gives the same ones, so nothing is redeployed.
"""

from collections.abc import Mapping

import structlog
import trio
from attrs import define, field, frozen

from coreflow.domain.errors import CoreflowError, Refused
from coreflow.domain.ids import NodeId, ServiceId
from coreflow.domain.platform.bindings import (
    BindingSpec,
    BindingStatus,
    BindingWishes,
    Bound,
    Provisioned,
    binding_wishes,
)
from coreflow.domain.platform.instances import Site, is_ambiguous, site_of_service
from coreflow.domain.ports import CloudlyPort
from coreflow.domain.records.models import PlatformRecord, Records
from coreflow.domain.swarm.observed import Observed

from .confidential import Confidential
from .corestores import Corestores
from .situation import Situation

log = structlog.get_logger()

NOBODY = "it is bound to {}, and there is no Corestore to ask"
AMBIGUOUS = (
    "{} says that it is reached under a name that leads to the Corestore of any node:"
    " set CORESTORE_CONTROL_URL to the one that serves the cluster"
)
UNREADABLE = "what it is bound to cannot be read"
NOWHERE = "no Corestore is known on the node where it runs"
REPORT_SECONDS = 10.0


@frozen
class _Held:
    """A binding that was provisioned."""

    spec: BindingSpec
    site: Site
    provisioned: Provisioned


@define
class _Variables:
    """The merged variables of a service: the same object as long as what they come from is."""

    parts: tuple[_Held, ...]
    merged: Mapping[str, str] = field(repr=False)


class Bindings:
    """Provisions through Corestores, and reports to Cloudly. Without any, bound services are held.

    Where every node has a Corestore of its own, a bound service is provisioned on one node, and kept there.
    """

    def __init__(
        self, corestores: Corestores | None, cloudly: CloudlyPort, known: Confidential | None = None
    ) -> None:
        self._known = known or Confidential()
        self._corestores, self._cloudly = corestores, cloudly
        self._sites: dict[ServiceId, Site] = {}
        self._held: dict[str, _Held] = {}
        self._stale: set[str] = set()
        self._errors: dict[str, str] = {}
        self._released: dict[str, BindingSpec] = {}
        self._variables: dict[ServiceId, _Variables] = {}
        self._reported: dict[str, BindingStatus] = {}
        self._wishes: tuple[PlatformRecord | None, BindingWishes] = (None, BindingWishes())

    def expire(self) -> None:
        """Ask for everything again; until then, what is known counts."""
        self._stale = set(self._held)

    def wishes(self, records: Records) -> BindingWishes:
        """What these records say of bindings."""
        if self._wishes[0] is not records.platform:
            self._wishes = records.platform, binding_wishes(records.platform)
        return self._wishes[1]

    def look(self, records: Records, observed: Observed) -> Bound:
        """What is known, and what has to be asked for."""
        wishes = self.wishes(records)
        there = {service.id for service in records.services}
        wanted = {service: specs for service, specs in wishes.wanted.items() if service in there}
        for spec in (spec for specs in wishes.wanted.values() for spec in specs):
            self._released.pop(spec.id, None)
        due: list[tuple[BindingSpec, str]] = []
        variables: dict[ServiceId, Mapping[str, str]] = {}
        missing: dict[ServiceId, str] = {}
        homes: dict[ServiceId, NodeId] = {}
        self.locate(records, observed)
        unreadable = records.unreadable_bindings
        missing |= {s: UNREADABLE for s in there if s in unreadable or None in unreadable}
        for service, specs in wanted.items():
            if service in missing:
                continue
            site = self._sites.get(service)
            if self._corestores is None:
                missing[service] = NOBODY.format(" and ".join(spec.capability for spec in specs))
                continue
            if site is None:
                missing[service] = NOWHERE
                continue
            if site.node is not None and len(observed.nodes) > 1:
                homes[service] = site.node
            due += [(spec, reason) for spec in specs if (reason := self._why(spec))]
            lacking = [spec for spec in specs if not self.has(spec)]
            held = [self._held[spec.id] for spec in specs if spec not in lacking]
            if lacking:
                errors = sorted({self._errors[s.id] for s in lacking if s.id in self._errors})
                names = " and ".join(spec.capability for spec in lacking)
                missing[service] = "; ".join((f"waits for its {names}", *errors))
            elif service in homes and any(is_ambiguous(one.provisioned) for one in held):
                missing[service] = AMBIGUOUS.format(site)
            else:
                variables[service] = self._merged(service, specs)
        unwanted = [
            spec
            for spec in wishes.unwanted
            if spec.service_id in self._sites
            and self._released.get(spec.id) != spec
            and unreadable.isdisjoint({spec.service_id, None})  # it may say that somebody uses the same
        ]
        return Bound(
            variables=variables, missing=missing, homes=homes, due=tuple(due), unwanted=tuple(unwanted)
        )

    def locate(self, records: Records, observed: Observed) -> None:
        """Find the Corestore of every bound service: the one on its node or, before it has one, on ours."""
        self._sites = {}
        wishes = self.wishes(records)
        if self._corestores is None or not (wishes.wanted or wishes.unwanted):
            return
        cluster = records.cluster.id
        sites = self._corestores.sites(observed, cluster)
        for service in {*wishes.wanted, *(spec.service_id for spec in wishes.unwanted)}:
            site = site_of_service(sites, observed, cluster, service)
            if site is not None:
                self._sites[service] = site

    def has(self, spec: BindingSpec) -> bool:
        """Whether it is provisioned, where its service is now."""
        held = self._held.get(spec.id)
        site = self._sites.get(spec.service_id)
        return held is not None and held.spec == spec and site is not None and held.site.key == site.key

    def _why(self, spec: BindingSpec) -> str:
        """Why Corestore has to be asked, if it has to."""
        if spec.id not in self._held:
            return "its values are not known yet"
        if not self.has(spec):
            return "the binding changed"
        return "asked again, in case its values changed" if spec.id in self._stale else ""

    def _merged(self, service: ServiceId, specs: tuple[BindingSpec, ...]) -> Mapping[str, str]:
        parts = tuple(self._held[spec.id] for spec in specs)
        known = self._variables.get(service)
        if known is None or known.parts != parts:
            merged: dict[str, str] = {}
            for part in parts:
                merged.update(part.provisioned.variables(part.spec.prefix))
            known = self._variables[service] = _Variables(parts, merged)
        return known.merged

    async def provision(self, spec: BindingSpec) -> None:
        """Ask Corestore. Raises Unavailable or Refused."""
        corestores, site = self._where(spec)
        self._stale.discard(spec.id)
        try:
            found = await corestores.at(site).provision(spec)
        except CoreflowError as exc:
            self._errors[spec.id] = str(exc)
            raise
        self._errors.pop(spec.id, None)
        self._held[spec.id] = _Held(spec, site, found)
        self._known.give(spec.id, found.values)

    async def deprovision(self, spec: BindingSpec) -> None:
        """Give it back. Raises Unavailable or Refused."""
        corestores, site = self._where(spec)
        await corestores.at(site).deprovision(spec)
        self._held.pop(spec.id, None)
        self._released[spec.id] = spec

    def _where(self, spec: BindingSpec) -> tuple[Corestores, Site]:
        site = self._sites.get(spec.service_id)
        if self._corestores is None or site is None:
            raise Refused(NOBODY.format(spec.capability))
        return self._corestores, site

    # reporting

    async def report(self, situation: Situation) -> None:
        """Tell Cloudly what changed since it was told last. That it does not want to know is nobody's trouble."""
        changed = [s for s in self.statuses(situation) if self._reported.get(s.binding.id) != s]
        with trio.move_on_after(REPORT_SECONDS):
            for status in changed:
                try:
                    await self._cloudly.report_binding(status)
                except Refused as exc:
                    log.debug("binding status not taken", binding=status.binding.id, reason=str(exc))
                except CoreflowError as exc:
                    log.debug("binding status not delivered", binding=status.binding.id, reason=str(exc))
                    return
                self._reported[status.binding.id] = status

    def statuses(self, situation: Situation) -> tuple[BindingStatus, ...]:
        """How far every binding is."""
        platform = situation.records.platform
        if platform is None:
            return ()
        wishes = self.wishes(situation.records)
        wanted = {spec.id for specs in wishes.wanted.values() for spec in specs}
        unsupported = {record.id for record in wishes.unsupported}
        found: list[BindingStatus] = []
        for record in platform.bindings:
            held = self._held.get(record.id)
            if record.id in unsupported:
                text = f"nobody here provides {record.capability}"
                found.append(BindingStatus(binding=record, state="unsupported", error=text))
            elif record.id not in wanted:
                is_gone = record.id in self._released
                found.append(BindingStatus(binding=record, state="disabled" if is_gone else "pending"))
            elif held is not None and record.id not in self._errors:
                keys = tuple(sorted(held.provisioned.variables(held.spec.prefix)))
                secret = situation.desired.secrets.get(held.spec.service_name)
                found.append(
                    BindingStatus(
                        binding=record,
                        state="ready",
                        endpoints=held.provisioned.endpoints,
                        keys=keys,
                        secret=secret.name if secret is not None else "",
                    )
                )
            elif record.id in self._errors:
                found.append(BindingStatus(binding=record, state="failed", error=self._errors[record.id]))
            else:
                found.append(BindingStatus(binding=record, state="pending"))
        return tuple(found)
