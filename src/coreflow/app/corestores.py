"""The Corestores of the cluster: which there are, and the port of each."""

from collections.abc import Callable

from coreflow.domain.ids import ClusterId
from coreflow.domain.platform.instances import Instance, Instances, find_instances
from coreflow.domain.ports import CorestorePort
from coreflow.domain.swarm.observed import Observed


class Corestores:
    """Makes a port for every address, once.

    With `configured`, that address serves all nodes. `is_ours` says that the corestore service is one of our base
    services: where it does not run yet, nobody else's is meant.
    """

    def __init__(
        self,
        make: Callable[[str], CorestorePort],
        configured: str | None = None,
        *,
        is_ours: bool = False,
    ) -> None:
        self._make, self._configured, self._is_ours = make, configured, is_ours
        self._ports: dict[str, CorestorePort] = {}

    @classmethod
    def one(cls, port: CorestorePort) -> "Corestores":
        """A single one, for everybody."""
        return cls(lambda _: port, "memory:")

    def instances(self, observed: Observed, cluster: ClusterId) -> Instances:
        """Return where they are."""
        return find_instances(observed, cluster, self._configured, is_ours=self._is_ours)

    def at(self, instance: Instance) -> CorestorePort:
        """The port of one."""
        if instance.url not in self._ports:
            self._ports[instance.url] = self._make(instance.url)
        return self._ports[instance.url]
