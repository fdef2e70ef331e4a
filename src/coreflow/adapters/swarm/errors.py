"""The meaning of an engine's error: one table for the messages of SwarmKit, gRPC, the daemon and any proxy in front of it.

Three answers are possible: the same request may succeed later (`Unavailable`), another writer was faster, so observe again
(`LostRace`), or repeating the request is pointless (`Refused`). The first rule that matches decides. Where none does, the
HTTP status does: 5xx is the engine's fault and is tried again, 4xx is the request's.

Sources: SwarmKit's `manager/state/raft`, `manager/state/store` and `manager/controlapi`, gRPC's status codes and moby's
`api/server/httpstatus`, which maps them: AlreadyExists to 409, NotFound to 404, InvalidArgument and FailedPrecondition to
400, Unavailable to 503, Unimplemented to 501, all others to 500. The messages are the same in the daemons of 20.10 and 26.1,
unless a rule says otherwise.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from attrs import field, frozen

from coreflow.adapters.engine.protocol import EngineError, EngineUnreachable
from coreflow.domain.errors import LostRace, PortError, Refused, Unavailable

NOT_A_MANAGER = "this engine is not a Swarm manager"
GOT_READY = "this engine is a manager that is not ready yet, or cannot reach the other managers"
LOCKED = "the Swarm is locked, as it is after a restart of an engine with autolock: run docker swarm unlock on its node"
EXPIRED = "the Swarm certificates of this engine have expired: leave the Swarm there (docker swarm leave) and join again"
_STATES = {
    "inactive": "is in no Swarm: docker swarm init, or docker swarm join",
    "pending": "is about to start or join a Swarm: docker info says more if that takes long",
    "active": "is a worker: let DOCKER_HOST name a manager, or run docker node promote on one",
}
"""What to do about an engine that is no manager, by the state that it tells."""
CHANGED = "it changed in between"
TEXT_LIMIT = 600
"""Characters of an engine's text that a message keeps."""

_GRPC = r"^rpc error: code = (?:{}) desc = "


def _compiled(text: str) -> re.Pattern[str]:
    return re.compile(text)


def _set(statuses: Iterable[int]) -> frozenset[int]:
    return frozenset(statuses)


class NotAManager(Unavailable):
    """This engine manages no Swarm at the moment: its own view of its state tells why."""


@frozen
class Rule:
    """An error that is known: by its text, in some statuses or in any."""

    kind: type[PortError]
    text: re.Pattern[str] = field(converter=_compiled)
    statuses: frozenset[int] = field(default=(), converter=_set)
    says: str = ""
    """What we say instead of the engine's text."""

    def matches(self, exc: EngineError) -> bool:
        """Return whether this is the error."""
        return (not self.statuses or exc.status in self.statuses) and bool(self.text.search(exc.message))


_ANY = r"rpc error: code = \w+ desc = "
_FAULTS = frozenset(range(500, 600))
_SHORT_OF_SPACE = (
    r"no space left on device|too many open files|cannot allocate memory|disk quota exceeded"
    r"|resource temporarily unavailable|input/output error|read-only file system"
)
_CUT_OFF = (
    r"connection (?:refused|reset by peer|timed out)|broken pipe|i/o timeout|no route to host"
    r"|network is unreachable|unexpected EOF|: EOF$|^EOF$"
)
_NOT_OURS = "Unavailable|DeadlineExceeded|Canceled|Aborted|ResourceExhausted|Internal|DataLoss"

RULES: tuple[Rule, ...] = (
    # somebody was faster
    Rule(LostRace, r"update out of sequence", _FAULTS, says=CHANGED),
    Rule(LostRace, rf"^(?:{_ANY})?object does not exist$", _FAULTS, says="it is gone"),
    Rule(LostRace, r"\b(?:service|network|secret|config) (?:\S+ )?not found", {400, 404, 500}),
    # too large is too large tomorrow
    Rule(Refused, r"(?:sending|send|received) message larger than max", _FAULTS),
    Rule(Refused, r"message is too large and can't be sent", _FAULTS),
    # the managers have no leader, a new one, or stop
    Rule(Unavailable, r"raft: |raft proposal dropped", _FAULTS),  # the latter since 26.1
    Rule(Unavailable, r"node lost leader status|no elected cluster leader|node is stopped", _FAULTS),
    Rule(Unavailable, r"redirect to leader|does not have a leader|too few managers are online", _FAULTS),
    Rule(
        Unavailable,
        r"(?:manager|dispatcher|store|allocator|broker) (?:is|was) (?:stopped|closed|not running)",
        _FAULTS,
    ),
    Rule(Unavailable, r"store lock (?:was )?held", _FAULTS),
    # this engine is no manager now
    Rule(Unavailable, r"not a swarm manager\. Manager is being prepared", says=GOT_READY),
    Rule(Unavailable, r"\b[Ss]warm is (?:encrypted|locked)", says=LOCKED),
    Rule(Unavailable, r"\b[Ss]warm certificates have expired", says=EXPIRED),
    Rule(NotAManager, r"not a swarm manager|not part of a swarm", says=NOT_A_MANAGER),
    # gRPC, between this engine and the leader
    Rule(Unavailable, _GRPC.format(_NOT_OURS)),
    Rule(
        Unavailable,
        r"context (?:deadline exceeded|canceled)|request canceled|Client\.Timeout exceeded",
        _FAULTS,
    ),
    Rule(Unavailable, r"transport is closing|grpc: the (?:client )?connection is ", _FAULTS),
    Rule(Unavailable, r"all SubConns are in TransientFailure|connection error: desc", _FAULTS),
    Rule(Unavailable, _CUT_OFF, _FAULTS),
    # the machine under the engine; a load tells of it with status 200 and a text, which reaches us as 400
    Rule(Unavailable, _SHORT_OF_SPACE),
    # a name that is taken: whether for good is for the port to find out
    Rule(LostRace, r"", {409}),
    Rule(LostRace, r"name conflicts with an existing object", _FAULTS),
    # the request is wrong, though the status says otherwise (20.10 answers 500 to names and subnets that it cannot read)
    Rule(Refused, rf"^(?:{_ANY})?(?:[Ii]nvalid|[Uu]nsupported|json:|cannot unmarshal)\b", _FAULTS),
    Rule(Refused, r"", {501, 505}),
    # the engine, or a proxy before it, has too much to do
    Rule(Unavailable, r"", {408, 421, 423, 425, 429}),
    Rule(Unavailable, r"", _FAULTS),
    Rule(Refused, r""),
)
"""First match wins; the last one matches everything."""

_TAKEN = re.compile(r"name conflicts with an existing object|already exists")


def is_conflict(exc: EngineError) -> bool:
    """Return whether a name is taken already.

    Services and secrets say it with 409, a network whose name differs in case only with 500 (measured on 20.10 and 26.1).
    """
    return exc.status in {409, 500} and bool(_TAKEN.search(exc.message))


def rule_of(exc: EngineError) -> Rule:
    """The rule that decides about an error."""
    return next(rule for rule in RULES if rule.matches(exc))


def said(text: str) -> str:
    """An engine's text as it may go into a message: one line of bounded length."""
    line = " ".join(text.split())
    return (
        line
        if len(line) <= TEXT_LIMIT
        else f"{line[:TEXT_LIMIT]}… ({len(line) - TEXT_LIMIT} more characters)"
    )


def translated(exc: EngineError, what: str) -> PortError:
    """The port error for an engine error. `what` names the call for a person."""
    rule = rule_of(exc)
    return rule.kind(f"{what}: {rule.says or said(exc.message)}")


def why_no_manager(swarm: Mapping[str, object]) -> str:
    """Return why an engine manages no Swarm and what to do about it, by the member `Swarm` of what it says of itself.

    The text of its error advises `docker swarm init` for all of them: that would make a second Swarm beside the first.
    """
    state, error = str(swarm.get("LocalNodeState") or ""), str(swarm.get("Error") or "")
    if state == "locked":
        return LOCKED
    if "certificates have expired" in error:
        return EXPIRED
    if state == "active" and swarm.get("ControlAvailable"):
        return GOT_READY
    advice = (
        f"this engine {_STATES[state]}"
        if state in _STATES
        else f"{NOT_A_MANAGER}, its state is {state or 'not told'}"
    )
    return f"{advice} ({said(error)})" if error else advice


@contextmanager
def translating(what: str) -> Iterator[None]:
    """Turn an engine's errors into the port's. `what` names the call for a person."""
    try:
        yield
    except EngineUnreachable as exc:
        raise Unavailable(f"{what}: the engine does not answer ({exc})") from exc
    except EngineError as exc:
        raise translated(exc, what) from exc
