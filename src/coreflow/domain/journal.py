"""The journal: entries about actions that were carried out, what may be asked of it, and how both are written as JSON.

An entry has two halves. The first is known when an action begins: what is done to which object, why, and who asked. The
second is its outcome. An action that began and whose outcome nobody learned, because the process was killed, is told as
`interrupted`: it may have been done.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from attrs import evolve, frozen

from coreflow.domain.backup.requests import BackupRequest, BackupResult, RestoreRequest, RestoreResult
from coreflow.domain.deploy.result import Outcome
from coreflow.domain.deploy.steps import Action, kind_of, name_of, owner_of, verb_of
from coreflow.domain.errors import CoreflowError
from coreflow.domain.ids import BASE
from coreflow.domain.routing.gateway import CreateRoute, DeleteRoute, GatewayAction, UpdateRoute
from coreflow.domain.swarm.actions import Start, Stop

Asker = Literal[
    "start", "push", "file", "event", "schedule", "answer", "interval", "hand", "command", "restore"
]
"""Who asked for an action: the start of the daemon, the control plane, a changed cluster file, an event of the engine, the
schedule, an answer that a pass had waited for, nobody (it was time to look), a signal or an embedding program, a command, a
restore under way."""
ASKERS: tuple[Asker, ...] = get_args(Asker)
INTERRUPTED = "interrupted"
KILLED = "the process ended before the outcome was known: it may have been done"
STOPPED = "stopped before the outcome was known: it may have been done"
TEXT_LIMIT = 1000
"""Characters of a reason, or of a detail."""
NAME_LIMIT = 255
_LAST_MOMENT = 253402300799.0
"""The end of the year 9999."""
MOST_ENTRIES = 1000
"""Of one answer."""
FEW_ENTRIES = 50


@frozen(kw_only=True)
class Entry:
    """One action: when it began, what it did, why, who asked, and what became of it."""

    time: float
    """When it began, in seconds since 1970, by the clock of the machine."""
    action: str
    """In a word or two, as the log has it: `create`, `update`, `remove`, `stop`, `backup` …"""
    kind: str
    """What it was done to: `service`, `secret`, `network`, `image`, `binding`, `gateway route`."""
    name: str
    owner: str
    """The id of the service record, or `base`; empty where it is nobody's."""
    reason: str
    asked: tuple[Asker, ...] = ()
    """Who asked for it; several where they asked for the same pass."""
    pass_id: int = 0
    """The number of the series of passes, as in the log; 0 where it was none."""
    outcome: str = ""
    """`applied`, `failed`, `blocked`, `overtaken`, `under way`, `completed`, `partial` or `interrupted`. Empty: not yet known."""
    detail: str = ""
    seconds: float = 0.0
    """How long it took."""


@frozen
class Record:
    """An entry in its place in the journal: later ones have higher numbers."""

    number: int
    entry: Entry


@frozen(kw_only=True)
class Query:
    """A question to the journal. The answer holds the last entries that fit."""

    service: str = ""
    """The name or the id of a service; empty: all of them."""
    since: float = 0.0
    after: int = 0
    """Only those with a higher number."""
    limit: int = FEW_ENTRIES


@frozen(kw_only=True)
class History:
    """The answer of a journal: entries, the oldest first, and where they are kept."""

    records: tuple[Record, ...] = ()
    kept: str = ""
    """The file; empty: only in memory, until the process ends."""
    problem: str = ""
    """Why the file is not written, where it should be."""
    last: int = 0
    """The highest number there is, whether it fits or not: where to go on from."""


# --- entries


def begun(action: Action | Stop | Start, time: float, pass_id: int, asked: Iterable[Asker]) -> Entry:
    """An action that begins."""
    if isinstance(action, Stop | Start):
        target = action.target
        verb, kind, name, owner = _word(action), "service", target.name, target.owner
    else:
        verb, kind, name, owner = verb_of(action), kind_of(action), name_of(action), owner_of(action)
    return _bounded(
        Entry(
            time=time,
            pass_id=pass_id,
            asked=in_order(asked),
            action=verb,
            kind=kind,
            name=name,
            owner=owner,
            reason=action.reason,
        )
    )


def _word(action: Stop | Start) -> str:
    return "stop" if isinstance(action, Stop) else "start"


_ROUTES: dict[type[GatewayAction], str] = {
    CreateRoute: "create",
    UpdateRoute: "update",
    DeleteRoute: "remove",
}


def begun_route(action: GatewayAction, time: float, asked: Iterable[Asker]) -> Entry:
    """A route at an external gateway that is made, changed or removed."""
    host = action.host if isinstance(action, DeleteRoute) else action.route.host
    return _bounded(
        Entry(
            time=time,
            asked=in_order(asked),
            action=_ROUTES[type(action)],
            kind="gateway route",
            name=host,
            owner="",
            reason=action.reason,
        )
    )


def begun_removal(image: str, time: float, asked: Iterable[Asker]) -> Entry:
    """An image that is removed from a node."""
    reason = "nothing needs it any more"
    return _bounded(
        Entry(
            time=time,
            asked=in_order(asked),
            action="remove",
            kind="image",
            name=image,
            owner="",
            reason=reason,
        )
    )


def begun_operation(request: BackupRequest | RestoreRequest, time: float, asked: Iterable[Asker]) -> Entry:
    """A backup or a restore that begins. The service has its id for a name here."""
    is_backup = isinstance(request, BackupRequest)
    return _bounded(
        Entry(
            time=time,
            asked=in_order(asked),
            action="backup" if is_backup else "restore",
            kind="service",
            name=request.service_id,
            owner=request.service_id,
            reason=f"backup {request.backup_id}",
        )
    )


def ended(entry: Entry, outcome: str, detail: str, time: float) -> Entry:
    """The entry of an action that has ended at a time."""
    took = max(time - entry.time, 0.0)
    return _bounded(evolve(entry, outcome=outcome, detail=detail, seconds=round(took, 3)))


def after_outcome(entry: Entry, outcome: Outcome, time: float) -> Entry | None:
    """The entry of an action of a pass; None where that is no news."""
    return ended(entry, outcome.status, outcome.detail, time) if outcome.is_news else None


def after_operation(entry: Entry, result: BackupResult | RestoreResult, time: float) -> Entry:
    """The entry of a backup or a restore."""
    if isinstance(result, BackupResult):
        errors = [f"{part}: {part.error}" for part in result.parts if part.error]
        text = "; ".join(filter(None, (result.error, *errors)))
    else:
        undo = f"backup {result.undo_id} takes it back" if result.undo_id else ""
        text = "; ".join(filter(None, (result.error, undo)))
    return ended(entry, result.status, text, time)


def in_order(asked: Iterable[str]) -> tuple[Asker, ...]:
    """Askers, each once, in the order of their table."""
    found = frozenset(asked)
    return tuple(one for one in ASKERS if one in found)


def interrupted(entry: Entry, detail: str = KILLED) -> Entry:
    """An action whose outcome nobody knows."""
    return evolve(entry, outcome=INTERRUPTED, detail=detail)


def _bounded(entry: Entry) -> Entry:
    return evolve(
        entry,
        name=entry.name[:NAME_LIMIT],
        owner=entry.owner[:NAME_LIMIT],
        reason=_cut(entry.reason),
        detail=_cut(entry.detail),
    )


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_LIMIT else f"{text[: TEXT_LIMIT - 1]}…"


# --- questions


def select(records: Iterable[Record], query: Query) -> tuple[Record, ...]:
    """The last of these records that fit a question, the oldest first."""
    everything = tuple(records)
    owners = owners_of((r.entry for r in everything), query.service)
    found = [r for r in everything if r.number > query.after and fits(r.entry, query, owners)]
    return tuple(found[-query.limit :])


def owners_of(entries: Iterable[Entry], service: str) -> frozenset[str]:
    """Return whose entries are those of a service: what it owns has names of its own. Base services share an owner."""
    named = (entry.owner for entry in entries if entry.kind == "service" and entry.name == service)
    return frozenset((service, *named)) - {BASE, ""}


def fits(entry: Entry, query: Query, owners: frozenset[str]) -> bool:
    """Say whether an entry fits a question about a service with these owners, its number aside."""
    is_about = not query.service or query.service == entry.name or entry.owner in owners
    return is_about and entry.time >= query.since


class InvalidQuery(CoreflowError):
    """A query that cannot be understood."""


_NAMES = ("service", "since", "after", "limit")
_COUNT = re.compile(r"[0-9]{1,18}", re.ASCII)


def query_in(asked: Mapping[str, str]) -> Query:
    """The question that the parameters of a URL ask. Raises InvalidQuery, which names the parameter and not its value."""
    if unknown := asked.keys() - set(_NAMES):
        raise InvalidQuery(f"{len(unknown)} unknown parameters; there are {', '.join(_NAMES)}")
    service = asked.get("service", "")
    if len(service) > NAME_LIMIT or not service.isprintable():
        raise InvalidQuery("service must be the name or the id of a service")
    since = moment_in(asked["since"]) if asked.get("since") else 0.0
    if since is None:
        raise InvalidQuery("since must be a time as in RFC 3339")
    after, limit = (_count(name, asked.get(name, "")) for name in ("after", "limit"))
    if limit == 0 or (limit or 0) > MOST_ENTRIES:
        raise InvalidQuery(f"limit must be an integer from 1 to {MOST_ENTRIES}")
    return Query(service=service, since=since, after=after or 0, limit=limit or FEW_ENTRIES)


def query_text(query: Query) -> dict[str, str]:
    """The parameters that ask a question; `query_in` reads them."""
    since = _moment(query.since) if query.since else ""
    asked = {"service": query.service, "since": since, "after": str(query.after), "limit": str(query.limit)}
    return {name: text for name, text in asked.items() if text}


def _count(name: str, text: str) -> int | None:
    if not text:
        return None
    if _COUNT.fullmatch(text) is None:
        raise InvalidQuery(f"{name} must be an integer, 0 or more")
    return int(text)


def moment_in(text: str) -> float | None:
    """The time that a text names, in seconds since 1970, in UTC where it does not say; None where it names none."""
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


# --- JSON


def _moment(seconds: float) -> str:
    """A time as in RFC 3339. A clock that runs wild names the nearest time that can be written."""
    within = min(max(seconds, 0.0), _LAST_MOMENT)
    return datetime.fromtimestamp(within, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def document(record: Record) -> dict[str, Any]:
    """A record as JSON."""
    entry = record.entry
    return {
        "id": record.number,
        "time": _moment(entry.time),
        "seconds": entry.seconds,
        "pass": entry.pass_id or None,
        "action": entry.action,
        "kind": entry.kind,
        "name": entry.name,
        "owner": entry.owner,
        "reason": entry.reason,
        "outcome": entry.outcome,
        "detail": entry.detail or None,
        "asked": list(entry.asked),
    }


def history_document(history: History) -> dict[str, Any]:
    """An answer as JSON."""
    return {
        "kept": history.kept or None,
        "problem": history.problem or None,
        "last": history.last,
        "entries": [document(record) for record in history.records],
    }


def history_in(answer: Mapping[str, Any]) -> History:
    """The answer that such a document describes. Raises KeyError, TypeError or ValueError for anything else."""
    return History(
        records=tuple(_record_in(one) for one in answer["entries"]),
        kept=str(answer["kept"] or ""),
        problem=str(answer["problem"] or ""),
        last=int(answer["last"]),
    )


def _record_in(one: Mapping[str, Any]) -> Record:
    entry = Entry(
        time=datetime.fromisoformat(one["time"]).timestamp(),
        seconds=float(one["seconds"]),
        pass_id=int(one["pass"] or 0),
        action=str(one["action"]),
        kind=str(one["kind"]),
        name=str(one["name"]),
        owner=str(one["owner"]),
        reason=str(one["reason"]),
        outcome=str(one["outcome"]),
        detail=str(one["detail"] or ""),
        asked=in_order(one["asked"]),
    )
    return Record(int(one["id"]), entry)
