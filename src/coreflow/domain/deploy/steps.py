"""The steps of a plan, and what a plan says beside them."""

from typing import Literal, assert_never

from attrs import frozen

from coreflow.domain.ids import Owner
from coreflow.domain.platform.actions import Deprovision, Provision
from coreflow.domain.platform.bindings import BindingSpec
from coreflow.domain.swarm.actions import Create, MarkFailed, Recreate, Remove, Update, Write
from coreflow.domain.swarm.observed import ObservedNetwork, ObservedSecret, ObservedService
from coreflow.domain.swarm.specs import Spec, Stage

from .desired import Note, Rejection, Unit

Action = Write | Provision | Deprovision
"""What a step does: a write to the Swarm, or a call of Corestore."""
Verb = Literal["create", "update", "recreate", "mark failed", "remove", "provision", "deprovision"]


def verb_of(action: Action) -> Verb:
    """The action in one word, or two."""
    match action:
        case Create():
            return "create"
        case Update():
            return "update"
        case Recreate():
            return "recreate"
        case MarkFailed():
            return "mark failed"
        case Remove():
            return "remove"
        case Provision():
            return "provision"
        case Deprovision():
            return "deprovision"
        case _:
            assert_never(action)


def subject_of(action: Action) -> Spec | BindingSpec | ObservedService | ObservedSecret | ObservedNetwork:
    """Return what the action is about."""
    return action.target if isinstance(action, Remove) else action.spec


def kind_of(action: Action) -> str:
    """`network`, `image`, `secret`, `service` or `binding`."""
    match subject_of(action):
        case ObservedService():
            return "service"
        case ObservedSecret():
            return "secret"
        case ObservedNetwork():
            return "network"
        case BindingSpec():
            return "binding"
        case spec:
            return spec.kind


def name_of(action: Action) -> str:
    """The name of the object the action is about."""
    return subject_of(action).name


def owner_of(action: Action) -> Owner:
    """Return whose object it is."""
    return subject_of(action).owner


def stage_of(action: Action) -> Stage:
    """The part of the pass in which the action is carried out."""
    return action.stage if isinstance(action, Remove) else action.spec.stage


@frozen
class Step:
    """An action in its place: the unit whose later steps it blocks when it fails."""

    unit: Unit
    action: Action


@frozen
class Wait:
    """Something that cannot be done yet, but will be by itself."""

    unit: Unit
    name: str
    reason: str
    until: float | None = None
    """When it is due, by the engine's clock, where that is known."""


@frozen
class Failure:
    """A service whose desired spec was rolled back: the old one runs, the new one is not tried again."""

    unit: Unit
    name: str
    reason: str


@frozen
class Contest:
    """A service that somebody else changes again and again: who, and how often."""

    unit: Unit
    name: str
    by: str
    times: int

    @property
    def reason(self) -> str:
        """Return what goes on, without what changes while it does."""
        return f"{self.by}, again and again: put right with growing pauses"


@frozen
class Refusal:
    """Removals that need a confirmation: how many of how many, which, and the word that confirms exactly these."""

    names: tuple[str, ...]
    owned: int
    token: str

    def __str__(self) -> str:
        return f"removing {len(self.names)} of {self.owned} services needs a confirmation: {self.token}"


@frozen(kw_only=True)
class PlanOptions:
    """Options of planning."""

    recreate: bool = False
    """Make services anew when image, secret or volumes changed, as the original coreflow did."""
    prune: bool = True
    """Remove our services whose record is gone."""
    retry_failed: bool = False
    """Try specs again that were rolled back."""
    confirmed: str | None = None
    """The token of a refusal: these removals are meant."""


@frozen(kw_only=True)
class Plan:
    """A plan: what has to change, in an order in which it is safe to apply, and what does not or cannot change."""

    steps: tuple[Step, ...] = ()
    kept: int = 0
    """Services that are as desired."""
    waits: tuple[Wait, ...] = ()
    failures: tuple[Failure, ...] = ()
    contests: tuple[Contest, ...] = ()
    rejections: tuple[Rejection, ...] = ()
    notes: tuple[Note, ...] = ()
    refusal: Refusal | None = None
    is_confirmed: bool = False
    """Whether it removes what would be refused without the token that was given."""

    @property
    def actions(self) -> tuple[Action, ...]:
        """The actions alone."""
        return tuple(step.action for step in self.steps)

    @property
    def is_clean(self) -> bool:
        """Return whether nothing is wrong: nothing rejected, failed or refused."""
        return not (self.rejections or self.failures or self.refusal)
