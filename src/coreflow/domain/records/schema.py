"""The JSON Schema of a cluster file (draft 2020-12), made from the shapes of the records.

What it accepts, `codec` decodes without a note; what is decoded without a note, it accepts, but for a few things:

* captured answers of a control plane, and services inside the cluster: nobody writes these by hand;
* values that have the right type and cannot be deployed, such as a port beyond 65535: these are rejected where they are rendered;
* ids with rare characters that cannot be printed: patterns have no common word for them.
"""

from collections.abc import Mapping
from typing import Any

from coreflow.domain.ids import BASE, ID_LIMIT

from .shapes import (
    OWN_PREFIX,
    SCHEMA_KEY,
    Anything,
    Choice,
    Fields,
    Kind,
    Listed,
    Mapped,
    Member,
    Scalar,
    Shape,
    cluster_file,
)

Json = dict[str, Any]

DRAFT = "https://json-schema.org/draft/2020-12/schema"
_PRINTED = r"(?=.*[^ ])[^\u0000-\u001f\u007f-\u00a0]+$(?!\n)"
_PORT = r"^([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$(?!\n)"
_SCALARS: Mapping[Kind, Json] = {
    "text": {"$ref": "#/$defs/Text"},
    "id": {"type": "string", "maxLength": ID_LIMIT, "pattern": f"^{_PRINTED}"},
    "service id": {"type": "string", "maxLength": ID_LIMIT, "pattern": f"^(?!{BASE}(/|$)){_PRINTED}"},
    "port text": {"type": ["string", "integer"], "minimum": 1, "maximum": 65535, "pattern": _PORT},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "truth": {"type": "boolean"},
}
_NULL: Json = {"type": "null"}
_TEXT: Json = {
    "type": ["string", "object"],
    "properties": {
        "fromFile": {"type": "string", "description": "The text is the content of this file."},
        "fromEnv": {"type": "string", "description": "The text is the value of this environment variable."},
    },
    "additionalProperties": False,
    "minProperties": 1,
    "maxProperties": 1,
}
"""A text, or where a cluster file has it from."""
_OPTIONAL_TEXT = {"$ref": "#/$defs/TextOrNull"}


def json_schema(*, part: bool = False) -> Json:
    """The schema of a cluster file; as a part of a folder it needs to hold nothing in particular."""
    making = _Making()
    root = making.fields(cluster_file())
    if part:
        del root["required"]
    own = {f"^{OWN_PREFIX}": {"description": "Yours: a place for YAML anchors."}}
    return {
        "$schema": DRAFT,
        "title": "coreflow cluster file",
        **root,
        "properties": {
            **root["properties"],
            SCHEMA_KEY: {"description": "This schema, for editors of JSON."},
        },
        "patternProperties": own,
        "$defs": {"Text": _TEXT, "TextOrNull": _or_null(_TEXT), **dict(sorted(making.definitions.items()))},
    }


class _Making:
    """A schema that is being made."""

    def __init__(self) -> None:
        self.definitions: dict[str, Json] = {}

    def fields(self, shape: Fields) -> Json:
        """A mapping with known keys."""
        whole: Json = {"description": shape.meaning, "type": "object"}
        if shape.envelope is None:
            return whole | self._object(shape.members)
        envelope = shape.envelope
        enclosed = self._object(shape.inside)
        beside = {name: shape.members[name] for name in shape.beside}
        around = self._object(beside)
        flat = self._object(shape.members)
        around["properties"][envelope] = enclosed | {"type": "object"}
        around["required"] = [*around.get("required", ()), envelope]
        flat["properties"][envelope] = _NULL
        if shape.named_by is not None:
            _either(around, flat, envelope, shape.named_by, self.shape(shape.members["id"].shape))
        is_enclosed = {"properties": {envelope: {"type": "object"}}, "required": [envelope]}
        return whole | {"if": is_enclosed, "then": around, "else": flat}

    def _object(self, members: Mapping[str, Member]) -> Json:
        found: Json = {
            "properties": {name: self._member(one) for name, one in members.items() if one.is_written},
            "additionalProperties": False,
        }
        if required := [name for name, member in members.items() if member.required]:
            found["required"] = required
        if instead := {name: m.instead_of for name, m in members.items() if m.instead_of is not None}:
            found["dependentSchemas"] = {
                older: {"properties": {new: False}} for older, new in instead.items()
            }
        return found

    def _member(self, member: Member) -> Json:
        schema = self.shape(member.shape)
        found: Json = {"description": member.about.meaning} | (
            schema if member.required else _or_null(schema)
        )
        if member.default is not None:
            found["default"] = member.default
        if member.about.older:
            found["deprecated"] = True
        return found

    def shape(self, shape: Shape) -> Json:
        """Describe what may be written for a shape."""
        match shape:
            case Scalar(kind=kind, least=least, most=most):
                limits = {"minimum": least, "maximum": most}
                return _SCALARS[kind] | {word: limit for word, limit in limits.items() if limit is not None}
            case Anything():
                return {}
            case Listed(of=inner):
                return {"type": "array", "items": self.shape(inner)}
            case Mapped(of=inner):
                return {"type": "object", "additionalProperties": _or_null(self.shape(inner))}
            case Choice(of=choices):
                return {"anyOf": [self.shape(choice) for choice in choices]}
            case Fields(name=name):
                if name not in self.definitions:
                    self.definitions[name] = {}
                    self.definitions[name] = self.fields(shape)
                    del self.definitions[name]["type"]  # where it is used, it may be null or not
                return {"$ref": f"#/$defs/{name}", "type": "object"}


def _either(around: Json, flat: Json, envelope: str, name: str, identity: Json) -> None:
    """One of the id and the name that stands for it has to be there, in a record with and without envelope."""
    has_id = {"properties": {"id": identity}, "required": ["id"]}
    has_name = {"properties": {name: identity}, "required": [name]}
    around["anyOf"] = [has_id, {"properties": {envelope: has_name}}]
    flat["anyOf"] = [has_id, has_name]


def _or_null(schema: Json) -> Json:
    """The schema, or null, which is the same as nothing.

    Types say it where they can: of alternatives (`anyOf`) that all fail, few validators say why.
    """
    if schema == _SCALARS["text"]:
        return _OPTIONAL_TEXT
    kind = schema.get("type")
    if kind is not None:
        return schema | {"type": [*([kind] if isinstance(kind, str) else kind), "null"]}
    return {"anyOf": [*schema.get("anyOf", [schema]), _NULL]} if schema else schema
