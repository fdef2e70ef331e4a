"""Provisions what services are bound to, and tells Cloudly how far that is.

Values are asked for once per process and at every refresh; asking again gives the same ones, so nothing is redeployed.
"""

import trio

from coreflow.domain.deploy.state import ReconcileState
from coreflow.domain.errors import CoreflowError, PreconditionFailed, Refused, Unavailable
from coreflow.domain.ids import ServiceId
from coreflow.domain.platform import ledger
from coreflow.domain.platform.bindings import BindingSpec, BindingStatus, BindingWishes, Bound, binding_wishes
from coreflow.domain.platform.instances import Instance, instance_of_service
from coreflow.domain.platform.ledger import NOBODY, Circumstances, Ledger, decide
from coreflow.domain.ports import ControlPlane
from coreflow.domain.records.models import PlatformRecord, Records
from coreflow.domain.status.connections import CORESTORE
from coreflow.domain.swarm.observed import Observed

from .confidential import Confidential
from .corestores import Corestores
from .heard import Heard, unheard
from .lazy_log import LazyLog

log = LazyLog()

REPORT_SECONDS = 10.0


class Bindings:
    """Provisions through Corestores, and reports to Cloudly. Without any, bound services are held.

    Where every node has a Corestore of its own, a bound service is provisioned on one node, and kept there.
    """

    def __init__(
        self,
        corestores: Corestores | None,
        cloudly: ControlPlane,
        known: Confidential | None = None,
        heard: Heard = unheard,
    ) -> None:
        self._known, self._heard = known or Confidential(), heard
        self._corestores, self._cloudly = corestores, cloudly
        self._instances: dict[ServiceId, Instance] = {}
        self._ledger = Ledger()
        self._reported: dict[str, BindingStatus] = {}
        self._wishes: tuple[PlatformRecord | None, BindingWishes] = (None, BindingWishes())

    def expire(self) -> None:
        """Ask for everything again; until then, what is known counts."""
        self._ledger = self._ledger.expired()

    def wishes(self, records: Records) -> BindingWishes:
        """Return what these records say of bindings."""
        if self._wishes[0] is not records.platform:
            self._wishes = records.platform, binding_wishes(records.platform)
        return self._wishes[1]

    def look(self, records: Records, observed: Observed) -> Bound:
        """Return what is known, and what has to be asked for."""
        self.locate(records, observed)
        wishes = self.wishes(records)
        self._ledger = self._ledger.wanting(spec for specs in wishes.wanted.values() for spec in specs)
        facts = Circumstances(
            wishes=wishes,
            services=frozenset(service.id for service in records.services),
            instances=self._instances,
            unreadable=frozenset(records.unreadable_bindings),
            is_served=self._corestores is not None,
            several_nodes=len(observed.nodes) > 1,
        )
        return decide(self._ledger, facts)

    def locate(self, records: Records, observed: Observed) -> None:
        """Find the Corestore of every bound service: the one on its node or, before it has one, on ours."""
        self._instances = {}
        wishes = self.wishes(records)
        if self._corestores is None or not (wishes.wanted or wishes.unwanted):
            return
        cluster = records.cluster.id
        instances = self._corestores.instances(observed, cluster)
        for service in {*wishes.wanted, *(spec.service_id for spec in wishes.unwanted)}:
            instance = instance_of_service(instances, observed, cluster, service)
            if instance is not None:
                self._instances[service] = instance

    def has(self, spec: BindingSpec) -> bool:
        """Return whether it is provisioned, where its service is now."""
        return self._ledger.has(spec, self._instances.get(spec.service_id))

    async def provision(self, spec: BindingSpec) -> None:
        """Ask Corestore. Raises PortError, or PreconditionFailed where there is none to ask."""
        corestores, instance = self._where(spec)
        self._ledger = self._ledger.asked(spec)
        try:
            found = await corestores.at(instance).provision(spec)
        except CoreflowError as exc:
            self._ledger = self._ledger.failed(spec, str(exc))
            self._heard(CORESTORE, instance.hostname, exc if isinstance(exc, Unavailable) else None)
            raise
        self._heard(CORESTORE, instance.hostname, None)
        self._ledger = self._ledger.provisioned(spec, instance, found)
        self._known.give(spec.id, found.values)

    async def deprovision(self, spec: BindingSpec) -> None:
        """Give it back. Raises what `provision` does."""
        corestores, instance = self._where(spec)
        await corestores.at(instance).deprovision(spec)
        self._ledger = self._ledger.deprovisioned(spec)

    def _where(self, spec: BindingSpec) -> tuple[Corestores, Instance]:
        instance = self._instances.get(spec.service_id)
        if self._corestores is None or instance is None:
            raise PreconditionFailed(NOBODY.format(spec.capability))
        return self._corestores, instance

    # reporting

    async def report(self, reconcile_state: ReconcileState) -> None:
        """Tell Cloudly what changed since it was told last. That it does not want to know is nobody's trouble."""
        changed = [s for s in self.statuses(reconcile_state) if self._reported.get(s.binding.id) != s]
        with trio.move_on_after(REPORT_SECONDS):
            for status in changed:
                try:
                    await self._cloudly.report_binding(status)
                except Refused as exc:
                    log.debug("binding status not accepted", binding=status.binding.id, reason=str(exc))
                except CoreflowError as exc:
                    log.debug("binding status not delivered", binding=status.binding.id, reason=str(exc))
                    return
                self._reported[status.binding.id] = status

    def statuses(self, reconcile_state: ReconcileState) -> tuple[BindingStatus, ...]:
        """Return how far every binding is."""
        platform = reconcile_state.records.platform
        secrets = {service: secret.name for service, secret in reconcile_state.desired.secrets.items()}
        return ledger.statuses(platform, self.wishes(reconcile_state.records), self._ledger, secrets)
