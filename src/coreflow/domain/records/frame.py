"""A cluster document as a whole: which cluster it is for, where in it the records are, and whether it is one at all."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import Factory, frozen

from coreflow.domain.errors import InvalidRecord, Problem

from .converter import decode, expected
from .models import ClusterRecord, UnknownField
from .unknown import unknown_in_document

RECORD_LIMIT = 100_000
"""Records of one kind; a document with more is no cluster."""
COMPOSE_FILE = (
    "this looks like a Compose file; a cluster file has configData, and services in a list with an id each"
)
_LISTS = ("services", "images", "externalRegistries", "secretBundles", "secretGroups")


@frozen
class Frame:
    """A document in its current spelling, and the cluster that it is for."""

    document: Mapping[str, Any]
    cluster: ClusterRecord
    moved: Mapping[str, str] = Factory(dict)
    """The paths of members that are elsewhere in the document as it was written."""

    def path(self, key: str) -> str:
        """Return where a member is in the document as it was written."""
        return self.moved.get(key, f"$.{key}")


def frame_of(
    document: object, take: Callable[[tuple[UnknownField, ...]], tuple[Problem, ...]] = lambda _: ()
) -> Frame:
    """Look at a document as a whole. Raises InvalidRecord when it cannot be used.

    `take` gets the unknown fields that belong to no record but the cluster, and gives the problems that they are.
    """
    if type(document) is not dict:
        raise InvalidRecord(Problem("$", expected(dict, document)))
    if _is_compose_file(document):
        raise InvalidRecord(Problem("$", COMPOSE_FILE))
    inner, prefix = _answer_in(document)
    unknown = unknown_in_document(inner, prefix)
    errors = take(unknown)
    whole = document if inner is document else {**inner, **_beside(document)}
    moved = {} if inner is document else {key: f"{prefix}.{key}" for key in inner if key not in document}
    older = _older_services(whole)
    if older is not None:
        place, services = older
        moved["services"] = f"{moved.get('configData', '$.configData')}{place}"
        whole = {**whole, "services": services}
    problems: list[Problem] = []
    cluster = _cluster(whole, moved.get("configData", "$.configData"), problems)
    problems += _list_problems(whole, moved)
    if problems or errors or cluster is None:  # what is missing may be there by another name
        raise InvalidRecord(*problems, *(one.problem for one in unknown))
    return Frame(whole, cluster, moved)


def _is_compose_file(document: Mapping[str, Any]) -> bool:
    """Tell whether these are the services of Docker Compose: a mapping of names, of which some have an image."""
    services = document.get("services")
    if type(services) is not dict or "configData" in document:
        return False
    return any(
        type(one) is dict and not one.keys().isdisjoint({"image", "build"}) for one in services.values()
    )


def _answer_in(document: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The records of a captured answer, which has them under `response`, and their path; else the document itself."""
    response = document.get("response")
    if type(response) is not dict or "method" not in document:
        return document, "$"
    return response, "$.response"


def _beside(document: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key not in {"response", "request"}}


def _older_services(document: Mapping[str, Any]) -> tuple[str, object] | None:
    """Before 2023 the services travelled inside the cluster record: they, and where in it they are."""
    raw = document.get("configData")
    if document.get("services") is not None or type(raw) is not dict:
        return None
    is_enclosed = type(raw.get("data")) is dict
    older = (raw["data"] if is_enclosed else raw).get("containers")
    return None if older is None else (".data.containers" if is_enclosed else ".containers", older)


def _cluster(document: Mapping[str, Any], path: str, problems: list[Problem]) -> ClusterRecord | None:
    raw = document.get("configData")
    if raw is None:
        problems.append(Problem(path, "configData is missing: it says which cluster this is"))
        return None
    try:
        return decode(raw, ClusterRecord, path)
    except InvalidRecord as exc:
        problems.extend(exc.problems)
        return None


def _list_problems(document: Mapping[str, Any], moved: Mapping[str, str]) -> Iterator[Problem]:
    """Yield what is wrong with the lists of records as such."""
    if document.get("services") is None:
        yield Problem("$.services", "services is missing: write an empty list if there shall be no services")
    for key in _LISTS:
        value, path = document.get(key), moved.get(key, f"$.{key}")
        if value is not None and type(value) is not list:
            yield Problem(path, expected(list, value))
        elif value is not None and len(value) > RECORD_LIMIT:
            yield Problem(path, f"has more than {RECORD_LIMIT} records")
