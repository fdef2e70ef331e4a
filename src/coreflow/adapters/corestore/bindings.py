"""Bindings: databases and object storage that Corestore provides for services."""

from collections.abc import Mapping
from itertools import chain

import trio

from coreflow.domain.errors import Refused, Unavailable
from coreflow.domain.ids import ServiceId
from coreflow.domain.platform.bindings import BindingSpec, Provisioned

from . import methods as m
from .failures import Failed, NotFound
from .parse_bindings import endpoints, secrets_in, texts, variables
from .requests import Requests


class BindingCalls:
    """Makes and gives back what bindings want; after a failure of the network, fails at once for `unhealthy_seconds`."""

    def __init__(self, requests: Requests, unhealthy_seconds: float) -> None:
        self._requests, self._failures = requests, requests.failures
        self._unhealthy_seconds = unhealthy_seconds
        self._given: dict[tuple[ServiceId, str], frozenset[str]] = {}
        """The secrets of every service's credentials that we know."""

    async def provision(self, spec: BindingSpec) -> Provisioned:
        """Make what a binding wants, or find it. Raises Refused when the answer has no variables that can be used."""
        what = f"corestore: provision {spec.name}"
        body = {
            m.SERVICE_ID.name: spec.service_id,
            m.SERVICE_NAME.name: spec.service_name,
            m.CAPABILITIES.name: [spec.capability],
            m.BINDING_ID.name: spec.id,
            **({m.CONFIG.name: dict(spec.config)} if spec.config else {}),
        }
        try:
            answer = await self._bind(what, self._requests.api.provision, body, spec)
        except NotFound:
            raise self._failures.too_old(what, self._requests.api.provision) from None
        try:
            values = variables(answer, spec.capability)
            found = Provisioned(values=values, endpoints=endpoints(answer, spec.capability))
        except Refused as exc:
            raise Refused(f"{what}: {self._failures.redacted(str(exc))}") from None
        self._given[spec.service_id, spec.capability] = frozenset(secrets_in(values))
        self._failures.learn(chain.from_iterable(self._given.values()))
        return found

    async def deprovision(self, spec: BindingSpec) -> None:
        """Give it back, with its data. Gone already is success."""
        what = f"corestore: deprovision {spec.name}"
        body = {m.SERVICE_ID.name: spec.service_id, m.CAPABILITIES.name: [spec.capability]}
        try:
            answer = await self._bind(what, self._requests.api.deprovision, body, spec)
            if not answer:  # it says nothing: whether it is gone is seen when it is asked for once more
                answer = await self._bind(what, self._requests.api.deprovision, body, spec)
            self._failures.check_proven(what, answer)
        except NotFound:
            return

    async def _bind(
        self, what: str, endpoint: m.Endpoint, body: Mapping[str, object], spec: BindingSpec
    ) -> Mapping[str, object]:
        await trio.lowlevel.checkpoint()
        if trio.current_time() < self._requests.unhealthy_until:
            raise Unavailable(f"{what}: unhealthy, it is left alone for a while")
        try:
            answer = await self._requests.ask(what, endpoint, body, secrets=tuple(texts(spec.config)))
        except Failed as exc:
            if exc.away:
                self._requests.unhealthy_until = trio.current_time() + self._unhealthy_seconds
            raise
        if not isinstance(answer, Mapping):
            raise Unavailable(f"{what}: the answer is not an object")
        if m.SERVICE_ID.of(answer) not in (None, spec.service_id):
            raise Refused(f"{what}: the answer is about another service")
        return answer
