"""The JSON Schema and the decoder say the same of every document, and every example in the docs is valid."""

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from tests.unit.domain.records.test_codec import good

from coreflow.adapters.file.references import replace
from coreflow.app.cli.demo import CLUSTER
from coreflow.domain.deploy.services import value_problems
from coreflow.domain.errors import InvalidRecord
from coreflow.domain.ids import id_problem
from coreflow.domain.records.codec import RecordDecoder
from coreflow.domain.records.converter import decode
from coreflow.domain.records.models import ServiceRecord
from coreflow.domain.records.schema import json_schema
from coreflow.domain.records.shapes import Scalar, cluster_file, walk

Json = dict[str, Any]
ROOT = Path(__file__).parents[4]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SCHEMA = json_schema()
VALIDATOR = Draft202012Validator(SCHEMA)
HOSTS = ["a.example.com", "b.example.com"]


def errors(document: object) -> list[ValidationError]:
    """What the schema says is wrong."""
    return list(VALIDATOR.iter_errors(document))


def faults(document: object) -> list[str]:
    """What the decoder says is wrong, unknown fields included."""
    document = copy.deepcopy(document)
    replace(document, lambda _: "text")
    try:
        records = RecordDecoder(strict=True).decode(document)
    except InvalidRecord as exc:
        return list(map(str, exc.problems))
    return [reason for one in records.rejected for reason in one.reasons]


def test_it_is_a_schema() -> None:
    """By the rules of its draft; nothing refers to what is not there, and nothing is there that nobody refers to."""
    Draft202012Validator.check_schema(SCHEMA)
    references = set(re.findall(r"'#/\$defs/(\w+)'", str(SCHEMA)))
    assert references == set(SCHEMA["$defs"])


def test_a_part_has_to_hold_nothing_in_particular() -> None:
    """One file of a folder may have the secrets alone; what it has is checked all the same."""
    part = Draft202012Validator(json_schema(part=True))
    group = {"id": "g", "data": {"key": "K", "environments": {"production": {"value": {"fromEnv": "K"}}}}}
    assert part.is_valid({"secretGroups": [group]})
    assert not part.is_valid({"secretGroup": [group]})
    assert not part.is_valid({"secretGroups": [{**group, "data": {}}]})
    assert not VALIDATOR.is_valid({"secretGroups": [group]})


def test_every_field_is_described() -> None:
    """Editors show what a field means, what it is without it, and that it is an older spelling."""
    for path, level in walk(cluster_file()):
        for name, member in level.members.items():
            assert member.about.meaning, f"{path}.{name}"
            assert member.about.meaning.endswith((".", ")")), f"{path}.{name}"
    flat = SCHEMA["$defs"]["Service"]["else"]
    assert flat["properties"]["scaleFactor"]["default"] == 1
    assert flat["required"] == ["id", "name"]
    assert SCHEMA["$defs"]["Resources"]["properties"]["memorySizeMB"]["deprecated"] is True


# examples


def examples() -> Iterator[tuple[str, Json]]:
    """Every cluster file in the docs and the tests; what is a part of one, made whole."""
    for page in PAGES:
        for index, text in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)):
            document = yaml.safe_load(text)
            if isinstance(document, dict) and document.keys() & {*cluster_file().members}:
                yield f"{page.name} {index}", {"configData": {"id": "c"}, "services": [], **document}
    yield "golden", yaml.safe_load((ROOT / "tests" / "unit" / "golden" / "cluster.yaml").read_text())
    yield "every field", good()
    yield "demo", CLUSTER


EXAMPLES = dict(examples())


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_is_valid(name: str) -> None:
    """Those of the README, of the docs and of the tests; the decoder finds no unknown field in them either."""
    assert [(error.json_path, error.message) for error in errors(EXAMPLES[name])] == []
    assert faults(EXAMPLES[name]) == []


def test_there_are_examples() -> None:
    """The README and the page about records have some."""
    assert {"README.md 0", "records.md 0", "platform.md 0"} <= EXAMPLES.keys()


# what the schema accepts, the decoder accepts


def free(depth: int = 2) -> st.SearchStrategy[Any]:
    """Any JSON."""
    scalars = (
        st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(-1e9, 1e9) | st.text(max_size=3)
    )
    if not depth:
        return scalars
    inner = free(depth - 1)
    return scalars | st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)


def made_of(schema: Json) -> st.SearchStrategy[Any]:
    """Documents that are made as the schema says, from the words that ours uses."""
    if not schema.keys() - {"description"}:
        return free()
    if "$ref" in schema:
        target = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
        found = st.deferred(lambda: made_of(target))
        return st.none() | found if "null" in schema.get("type", ()) else found
    if "if" in schema:
        return made_of(schema["then"]) | made_of(schema["else"])
    if "anyOf" in schema:
        rest = {word: value for word, value in schema.items() if word != "anyOf"}
        return st.one_of([made_of(merged(rest, choice)) for choice in schema["anyOf"]])
    if "dependentSchemas" in schema:
        rest = {word: value for word, value in schema.items() if word != "dependentSchemas"}
        (older,) = schema["dependentSchemas"]
        (newer,) = schema["dependentSchemas"][older]["properties"]
        return st.one_of([made_of(without(rest, name)) for name in (older, newer)])
    if "minProperties" in schema:
        kinds = [kind for kind in schema["type"] if kind != "object"]
        names = st.sampled_from(sorted(schema["properties"]))
        return st.one_of([*(SIMPLE[kind]({}) for kind in kinds), st.builds(lambda name: {name: "x"}, names)])
    if "properties" in schema:
        required = set(schema.get("required", ()))
        members = {name: made_of(member) for name, member in schema["properties"].items()}
        return st.fixed_dictionaries(
            {name: members[name] for name in members if name in required},
            optional={name: members[name] for name in members if name not in required},
        )
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return st.one_of([SIMPLE[kind](schema) for kind in kinds])


def merged(one: Json, other: Json) -> Json:
    """Both schemas at once, as far as ours go."""
    both = {word: value for word, value in one.items() if word != "$ref" or not other} | other
    if "properties" in one and "properties" in other:
        names = {**one["properties"], **other["properties"]}
        both["properties"] = {
            name: merged(one["properties"].get(name, {}), other["properties"].get(name, {})) for name in names
        }
    both["required"] = [*one.get("required", ()), *other.get("required", ())]
    return both if both["required"] else {word: value for word, value in both.items() if word != "required"}


def without(schema: Json, name: str) -> Json:
    """The schema without a property."""
    return {**schema, "properties": {key: one for key, one in schema["properties"].items() if key != name}}


def _numbers(schema: Json, *, whole: bool) -> st.SearchStrategy[Any]:
    least, most = schema.get("minimum", -1e9), schema.get("maximum", 1e9)
    if whole:
        return st.integers(int(least), int(most)) | st.integers(int(least), int(most)).map(float)
    return st.floats(least, most) | st.integers(int(least) + 1, int(most))


SIMPLE: dict[str, Any] = {
    "null": lambda _: st.none(),
    "boolean": lambda _: st.booleans(),
    "integer": lambda schema: _numbers(schema, whole=True),
    "number": lambda schema: _numbers(schema, whole=False),
    "string": lambda schema: (
        st.from_regex(schema["pattern"], fullmatch=True).filter(lambda text: len(text) <= 255 and text.isprintable())
        if "pattern" in schema
        else st.text(max_size=5)
    ),
    "array": lambda schema: st.lists(made_of(schema["items"]), max_size=2),
    "object": lambda schema: st.dictionaries(
        st.sampled_from(HOSTS), made_of(schema["additionalProperties"]), max_size=2
    ),
}  # fmt: skip


@st.composite
def documents(draw: st.DrawFn) -> Json:
    """A document with records of one kind, made as the schema says."""
    members = SCHEMA["properties"]
    document: Json = {"configData": {"id": "c"}, "services": []}
    name = draw(st.sampled_from(sorted(members)))
    document[name] = draw(made_of(members[name]))
    return with_ids_of_their_own(document)


def with_ids_of_their_own(document: Json) -> Json:
    """A schema cannot say that no two records have one id."""
    for value in document.values():
        for index, record in enumerate(value if isinstance(value, list) else ()):
            if isinstance(record, dict) and "id" in record:
                record["id"] = f"{index}{record['id']}"[:255]
    return document


@given(documents())
def test_what_the_schema_accepts_the_decoder_accepts(document: Json) -> None:
    """Documents made from the schema are valid by it, and decoded without a rejection or a note."""
    assert [(error.json_path, error.message) for error in errors(document)] == []
    assert faults(document) == []


# whatever it is, both say the same of it

SCALARS = st.sampled_from([None, True, 0, 1, 2.0, 1.5, 70_000, -1, "", "a", "80", [], {}, [None], ["a"], {"a": None}, {"a": "b"}])  # fmt: skip
NAMES = sorted(
    {name for _, level in walk(cluster_file()) for name in (*level.members, "data", "x", "$schema", "x-own")}
)
RENDERED = {"minimum", "maximum", "pattern"}
"""Words of the schema that say what is rejected where it is rendered."""


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a document with each of its keys."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from places(value[key])


@st.composite
def broken(draw: st.DrawFn) -> Json:
    """A document in which a few things are replaced, left out, or put where they do not belong."""
    document = draw(documents() | st.sampled_from([*EXAMPLES.values()]).map(copy.deepcopy))
    for _ in range(draw(st.integers(1, 3))):
        if not (found := list(places(document))):
            break
        around, key = found[draw(st.integers(0, len(found) - 1))]
        change = draw(st.sampled_from(["replace", "drop", "add"]))
        if change == "replace":
            around[key] = copy.deepcopy(draw(SCALARS))
        elif change == "drop":
            del around[key]
        elif isinstance(around, dict):
            around[draw(st.sampled_from(NAMES))] = copy.deepcopy(draw(SCALARS))
    return document


def reasons(error: ValidationError) -> Iterator[str]:
    """The words of the schema that a document does not obey, innermost first."""
    for inner in error.context or ():
        yield from reasons(inner)
    if not error.context:
        yield str(error.validator)


def is_described(document: Json) -> bool:
    """Whether the document is one that the schema is for: no captured answer, and its services are not in the cluster."""
    return "containers" not in str(document) and "response" not in document


@given(broken())
def test_schema_and_decoder_agree(document: Json) -> None:
    """What one refuses, the other does, but for values that are rejected later."""
    assume(is_described(document))
    found, wrong = errors(document), faults(document)
    wrong = [fault for fault in wrong if " occurs " not in fault and "the same host name" not in fault]
    if wrong:
        assert found, wrong
    elif found:
        assert RENDERED & {word for error in found for word in reasons(error)}, found


# values that are rejected where they are rendered

BOUNDED = [
    ("ports.web", 1, 65535),
    ("domains.0.port", 1, 65535),
    ("healthCheck.retries", 0, 2**31 - 1),
    ("healthCheck.intervalSeconds", 0, None),
    ("healthCheck.timeoutSeconds", 0, None),
    ("healthCheck.startPeriodSeconds", 0, None),
    ("resources.memorySizeLimitMB", 6.291456, None),
    ("resources.memorySizeReservationMB", 0, None),
    ("resources.cpuLimit", 0, None),
    ("resources.cpuReservation", 0, None),
]
"""Every field with a least or most value."""


def holding(path: str, value: float) -> Json:
    """A service with a value at a path."""
    data: Json = {
        "name": "web",
        "registryTarget": {"imageUrl": "web:1"},
        "ports": {"web": 80},
        "domains": [{"name": "a.example.com"}],
        "healthCheck": {"command": "true"},
        "resources": {},
    }
    here: Any = data
    *way, last = path.split(".")
    for step in way:
        here = here[int(step) if step.isdigit() else step]
    here[last] = value
    return {"id": "s", "data": data}


@pytest.mark.parametrize(("path", "least", "most"), BOUNDED)
def test_limits_are_those_of_rendering(path: str, least: float, most: float | None) -> None:
    """A value just beyond a limit is rejected by both, one at the limit by neither."""
    step = 1 if most is not None else 0.001
    for value, fine in ((least, True), (least - step, False), (most, True), (most and most + step, False)):
        if value is None:
            continue
        raw = holding(path, value)
        assert bool(errors({"configData": {"id": "c"}, "services": [raw]})) is not fine, value
        assert bool(value_problems(decode(raw, ServiceRecord))) is not fine, value


@pytest.mark.parametrize(
    "port", ["1", "9", "80", "65535", "0", "65536", "080", "x", "", "-1", "100000", 80, 0, 65536]
)
def test_ports_of_further_names(port: object) -> None:
    """Digits or a number, as rendering takes them."""
    raw = holding("ports.custom", 0)
    raw["data"]["ports"]["custom"] = {"b.example.com": port}
    is_valid = not errors({"configData": {"id": "c"}, "services": [raw]})
    assert is_valid is not bool(value_problems(decode(raw, ServiceRecord)))


def test_every_limit_is_tested() -> None:
    """No field gets a limit in the schema that rendering does not have."""
    found = {
        f"{path}.{name}".removeprefix("services[].").replace("[]", ".0")
        for path, level in walk(cluster_file())
        if "containers" not in path
        for name, member in level.members.items()
        if isinstance(member.shape, Scalar) and (member.shape.least, member.shape.most) != (None, None)
    }
    assert found == {path for path, _, _ in BOUNDED}


@pytest.mark.parametrize(
    "identity",
    ["a", "a b", " ", "", "base", "base/x", "basement", "x" * 255, "x" * 256, "a\n", "\u00a0", "ä"],
)
def test_ids(identity: str) -> None:
    """An id is one by the schema if it is one for the decoder."""
    raw = {"configData": {"id": "c"}, "services": [{"id": identity, "name": "web"}]}
    assert bool(errors(raw)) is (id_problem(identity, of_service=True) is not None)


@pytest.mark.parametrize(
    ("data", "path", "message"),
    [
        ({"ports": {"web": "eighty"}}, "ports.web", "'eighty' is not of type 'integer', 'null'"),
        ({"ports": 80}, "ports", "80 is not of type 'object', 'null'"),
        ({"resources": {"cpu": 1}}, "resources", "Additional properties are not allowed ('cpu' was unexpected)"),
        ({"healthCheck": {"command": "true", "retries": -1}}, "healthCheck.retries", "-1 is less than the minimum of 0"),
    ],
)  # fmt: skip
def test_an_optional_mapping_says_what_is_wrong_inside(data: Json, path: str, message: str) -> None:
    """A plain validator points at the culprit, not at a mapping that is neither this nor null."""
    document = {"configData": {"id": "c"}, "services": [{"id": "s", "name": "web", **data}]}
    assert [(error.json_path, error.message) for error in errors(document)] == [
        (f"$.services[0].{path}", message)
    ]


def test_null_stands_for_an_optional_mapping_alone() -> None:
    """In a list, and where a mapping has to be, null is none."""
    cluster = {"configData": {"id": "c"}}
    assert not errors({**cluster, "services": [{"id": "s", "name": "web", "ports": None, "data": None}]})
    bad: list[Json] = [
        {**cluster, "services": [None]},
        {"configData": None, "services": []},
        {**cluster, "services": [], "images": [{"id": "i", "location": None}]},
        {**cluster, "services": [{"id": "s", "name": "web", "domains": [None]}]},
    ]
    assert all(map(errors, bad))
