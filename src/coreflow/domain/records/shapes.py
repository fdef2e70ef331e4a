"""The shape of a cluster file, as one tree made from the records: which fields there are, and what belongs into each.

Whatever has to know the fields reads it here: the note of unknown ones (`unknown`), and the JSON Schema (`schema`).
"""

from collections.abc import Iterator, Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, NewType, Union, get_args, get_origin

import attrs
from attrs import Factory, frozen

from .about import About, about_of
from .converter import ENVELOPED, WITH_ID, wire_name
from .models import (
    CertificateRecord,
    ClusterRecord,
    DomainRecord,
    ExternalRegistryRecord,
    GatewayRecord,
    HealthCheckRecord,
    ImageRecord,
    PlatformRecord,
    Ports,
    SecretBundleRecord,
    SecretGroupRecord,
    ServiceRecord,
)

DATA, DESIRED_STATE = "data", "desiredState"
OWN_PREFIX, SCHEMA_KEY = "x-", "$schema"
"""Keys of a cluster file that are its author's: a place for YAML anchors, and for the schema that an editor uses."""

Kind = Literal["text", "id", "service id", "port text", "integer", "number", "truth"]


@frozen(kw_only=True)
class Scalar:
    """A single value."""

    kind: Kind
    least: float | None = None
    most: float | None = None


@frozen
class Anything:
    """Any JSON value."""


@frozen
class Listed:
    """A list; its elements cannot be left out."""

    of: "Shape"


@frozen
class Mapped:
    """A mapping whose keys are its author's."""

    of: "Shape"


@frozen
class Choice:
    """One of several shapes, of which one at most has fields."""

    of: tuple["Shape", ...]


@frozen(eq=False)
class Fields:
    """A mapping whose keys are known."""

    name: str
    meaning: str = ""
    members: "Mapping[str, Member]" = Factory(dict)
    envelope: str | None = None
    """The member that may hold all members but those of `beside`."""
    beside: tuple[str, ...] = ()
    named_by: str | None = None
    """The member that stands for a missing id."""

    def __repr__(self) -> str:
        return f"Fields({self.name})"

    @property
    def inside(self) -> Mapping[str, "Member"]:
        """The members that go into the envelope."""
        return {name: member for name, member in self.members.items() if name not in self.beside}


Shape = Scalar | Anything | Listed | Mapped | Choice | Fields


@frozen(kw_only=True)
class Member:
    """A field of a mapping."""

    shape: Shape
    about: About
    required: bool = False
    default: object = None
    is_written: bool = True
    """False where only what is years old has it."""
    instead_of: str | None = None
    """The field that this one is an older spelling of: it counts only where that one is absent."""


def is_own(key: str) -> bool:
    """Tell whether a key at the top of a cluster file is its author's."""
    return key == SCHEMA_KEY or key.startswith(OWN_PREFIX)


def fields_of(shape: Shape) -> Fields | None:
    """The fields that are reached through lists and choices, and through mappings by any key."""
    match shape:
        case Fields():
            return shape
        case Listed(of=inner) | Mapped(of=inner):
            return fields_of(inner)
        case Choice(of=choices):
            return next((found for choice in choices if (found := fields_of(choice)) is not None), None)
        case _:
            return None


def walk(shape: Fields, path: str = "") -> Iterator[tuple[str, Fields]]:
    """Every mapping with known fields, outermost first, with its path: `resources.volumeMounts[]`."""
    yield path, shape
    for name, member in shape.members.items():
        inner = fields_of(member.shape)
        if inner is not None:
            yield from walk(inner, f"{path}.{name}{_steps(member.shape)}".removeprefix("."))


def _steps(shape: Shape) -> str:
    match shape:
        case Listed(of=inner):
            return f"[]{_steps(inner)}"
        case Mapped(of=inner):
            return f".*{_steps(inner)}"
        case Choice(of=choices):
            return next(filter(None, map(_steps, choices)), "")
        case _:
            return ""


# from the records


@cache
def shape_of(kind: type) -> Fields:
    """The fields of a record's class."""
    attrs.resolve_types(kind)
    members = {wire_name(a.name): _member(kind, a) for a in attrs.fields(kind)}
    if kind is ClusterRecord:
        members["servers"] = attrs.evolve(
            members["nodes"], about=About(meaning="Older name of `nodes`.", older=True), instead_of="nodes"
        )
    meaning = (kind.__doc__ or "").partition("\n")[0].partition(" (`")[0].rstrip(".") + "."
    return Fields(
        kind.__name__.removesuffix("Record"),
        meaning,
        members,
        envelope=DATA if kind in ENVELOPED else DESIRED_STATE if kind is PlatformRecord else None,
        beside=("id",) if kind in ENVELOPED else (),
        named_by="name" if kind is ClusterRecord else None,
    )


def _member(kind: type, attribute: "attrs.Attribute[Any]") -> Member:
    known = about_of(attribute)
    is_id = attribute.name == "id" and kind in WITH_ID
    if is_id:
        shape: Shape = Scalar(kind="service id" if kind is ServiceRecord else "id")
    else:
        shape = _SPECIAL.get((kind, attribute.name)) or _shape(attribute.type, known)
    default = attribute.default
    return Member(
        shape=shape,
        about=known,
        required=default is attrs.NOTHING
        and not (kind is ClusterRecord and is_id),  # it defaults to the name
        default=known.default if known.default is not None else default if type(default) is bool else None,
    )


_TEXT = Scalar(kind="text")
_SPECIAL: Mapping[tuple[type, str], Shape] = {
    (Ports, "custom"): Mapped(Scalar(kind="port text")),
    (HealthCheckRecord, "command"): Choice((_TEXT, Listed(_TEXT))),
}
"""Fields that may be written in more ways than their type says: see `converter`."""
_KINDS: Mapping[Any, Kind] = {str: "text", bool: "truth", int: "integer", float: "number"}


def _shape(kind: Any, known: About = About()) -> Shape:  # noqa: B008 - a frozen value
    """The shape of what a field's type says."""
    if isinstance(kind, NewType):
        return _shape(kind.__supertype__, known)
    if kind in _KINDS:
        return Scalar(kind=_KINDS[kind], least=known.least, most=known.most)
    if attrs.has(kind):
        fields = shape_of(kind)
        return Choice((_TEXT, fields)) if kind is DomainRecord else fields
    arguments = get_args(kind)
    if get_origin(kind) in {Union, UnionType}:
        (inner,) = (choice for choice in arguments if choice is not NoneType)
        return _shape(inner, known)
    if get_origin(kind) is tuple:
        return Listed(_shape(arguments[0]))
    return Mapped(Anything() if arguments[1] is object else _shape(arguments[1]))


# the document


def _list_of(kind: type, meaning: str, *, required: bool = False) -> Member:
    return Member(shape=Listed(shape_of(kind)), about=About(meaning=meaning), required=required)


@cache
def cluster_file() -> Fields:
    """The whole document."""
    older = attrs.evolve(
        _list_of(ServiceRecord, "Older place of `services`: used when there is no `services`."),
        is_written=False,
    )
    cluster = shape_of(ClusterRecord)
    cluster = attrs.evolve(cluster, members={**cluster.members, "containers": older})
    return Fields(
        "ClusterFile",
        "Everything that coreflow is to run on one Swarm.",
        {
            "configData": Member(shape=cluster, about=About(meaning="The cluster."), required=True),
            "services": _list_of(ServiceRecord, "The services.", required=True),
            "images": _list_of(ImageRecord, "Images that services refer to."),
            "externalRegistries": _list_of(ExternalRegistryRecord, "Registries with their logins."),
            "secretBundles": _list_of(SecretBundleRecord, "Choices of secret groups."),
            "secretGroups": _list_of(SecretGroupRecord, "Secret variables."),
            "platform": Member(
                shape=shape_of(PlatformRecord), about=About(meaning="Providers and bindings.")
            ),
            "externalGatewayConfig": Member(
                shape=shape_of(GatewayRecord), about=About(meaning="The gateway in front of this cluster.")
            ),
            "certificates": Member(
                shape=Mapped(shape_of(CertificateRecord)),
                about=About(meaning="Certificates by host name, in any spelling."),
            ),
        },
    )
