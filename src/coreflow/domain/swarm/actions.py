"""Everything that is done to the objects of a Swarm: the union that its port carries out."""

from attrs import field, frozen

from .failures import Cause
from .observed import ObservedNetwork, ObservedSecret, ObservedService
from .specs import ServiceSpec, Spec, Stage


@frozen
class Create:
    """Make an object that is not there."""

    spec: Spec
    reason: str


@frozen
class Update:
    """Change a service in place: Swarm replaces its tasks one by one if it must."""

    spec: ServiceSpec
    target: ObservedService
    reason: str


@frozen
class Recreate:
    """Remove a service and make it again."""

    spec: ServiceSpec
    target: ObservedService
    reason: str


@frozen
class MarkFailed:
    """Note on a service, in its labels, that Swarm rolled this spec back. Restarts nothing."""

    spec: ServiceSpec
    target: ObservedService
    reason: str
    cause: Cause = Cause.IMAGE
    times: int = 1
    """How often that has happened."""


@frozen
class Remove:
    """Remove an object of ours that nobody wants any more. A plan removes no network: taking a cluster down does."""

    target: ObservedService | ObservedSecret | ObservedNetwork
    stage: Stage
    reason: str


@frozen
class Stop:
    """Give a service no tasks for a while: how many it had, and what it waits for, is noted in its labels.

    Stopping it again renews the lease, as long as the one that is there is the `expected` one; without one, the service
    must not be stopped. A plan has no such action: a restore makes it.
    """

    target: ObservedService
    lease: str = field(repr=False)
    expected: str = field(repr=False)
    reason: str

    @property
    def stage(self) -> Stage:
        """It is about a workload."""
        return Stage.WORKLOADS


@frozen
class Start:
    """Give a stopped service the tasks that it had, and take the lease off, if that is the `expected` one.

    A plan has no such action either.
    """

    target: ObservedService
    expected: str = field(repr=False)
    reason: str

    @property
    def stage(self) -> Stage:
        """It is about a workload."""
        return Stage.WORKLOADS


Write = Create | Update | Recreate | MarkFailed | Remove
"""What a plan does to the objects of a Swarm."""
SwarmAction = Write | Stop | Start
"""All that the port of a Swarm carries out. A restore stops and starts services; a plan never does."""
