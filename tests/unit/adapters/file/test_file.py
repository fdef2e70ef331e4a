"""The cluster file: how it is parsed, watched, and what is said of a broken one."""

import gc
import json
import math
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
import trio
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from coreflow.adapters.documents import DEPTH_LIMIT, json_lines, parse_json, parse_yaml, yaml_lines
from coreflow.adapters.file import FileCloudly
from coreflow.adapters.file.port import CHUNK, _differences
from coreflow.adapters.file.sources import FILE_LIMIT, Watched
from coreflow.domain.errors import InvalidRecord, PreconditionFailed, Refused, Unavailable, Unreadable
from coreflow.domain.ids import Owner
from coreflow.domain.records.converter import Unclear
from coreflow.domain.swarm.specs import ImageSpec, Stage
from coreflow.gc_pause import LARGE_DOCUMENT
from coreflow.reading import read_file

NAME = Path("cluster.yaml")
LOADERS: tuple[type, ...] = (yaml.CSafeLoader, yaml.SafeLoader)
DOCUMENT = {"configData": {"id": "c1"}, "services": [{"id": "s1", "data": {"name": "shop"}}]}


def problem_of(call: Callable[[], object]) -> str:
    """The one problem of a document that cannot be parsed."""
    with pytest.raises(InvalidRecord) as caught:
        call()
    assert caught.value.__context__ is None
    (problem,) = caught.value.problems
    return str(problem)


# YAML


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(
    ("text", "document"),
    [
        ("a: text", {"a": "text"}),
        ("a: 'it''s'\nb: \"x\\ty\"\nc: |\n  two\n  lines\n", {"a": "it's", "b": "x\ty", "c": "two\nlines\n"}),
        ("[1, -2, 0x10, 1.5, true, no, ~, null, '']", [1, -2, 16, 1.5, True, "no", None, None, ""]),
        ("['1', \"true\", 'null', !!str 1]", ["1", "true", "null", "1"]),
        (
            "[2026-11-23, 2026-11-23 09:00:00, !!timestamp 2026-11-23]",
            ["2026-11-23", "2026-11-23 09:00:00", "2026-11-23"],
        ),
        ("a: =\nb: <<", {"a": "=", "b": "<<"}),
        ("a:\n- x\n- {y: [z]}\n- []\n- {}", {"a": ["x", {"y": ["z"]}, [], {}]}),
        (
            "a: &one {x: 1}\nb: *one\nc: &two text\nd: *two",
            {"a": {"x": 1}, "b": {"x": 1}, "c": "text", "d": "text"},
        ),
        ("&k a: 1\nb: *k", {"a": 1, "b": "a"}),
        ("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}", {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}),
        ("b: {<<: [{x: 1}, {x: 2, y: 2}], z: 3}", {"b": {"x": 1, "y": 2, "z": 3}}),
        ("'<<': 1", {"<<": 1}),
        ("'1': a\n'on': b\n? c\n: d", {"1": "a", "on": "b", "c": "d"}),
        ("!!map {a: !!seq [!!int '1']}", {"a": [1]}),
        ("# first\n---\na: 1\n...\n", {"a": 1}),
        ("a: ä€😀", {"a": "ä€😀"}),
        ("{a: 1,\r\n b: 2}", {"a": 1, "b": 2}),
        ("text", "text"),
    ],
)
def test_yaml_becomes_a_document(loader: type, text: str, document: object) -> None:
    """Both of PyYAML's loaders give the document that JSON would, and timestamps stay text."""
    assert parse_yaml(NAME, text.encode(), loader) == document


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("a: 1\nb: {c: 1,\n c: canary}", 3, "this key occurs twice in its mapping"),
        ("a: 1\n'a': canary", 2, "this key occurs twice in its mapping"),
        ("a: &a {x: 1}\nb:\n  <<: *a\n  y: 1\n  y: 2", 5, "this key occurs twice in its mapping"),
        ("a: 1\n2: canary", 2, "this key is not text: put quotes around it"),
        ("true: canary", 1, "this key is not text: put quotes around it"),
        ("080: canary", 1, "this key is not text: put quotes around it"),
        ("~: canary", 1, "this key is not text: put quotes around it"),
        ("? [canary]\n: 1", 1, "this key is not text: put quotes around it"),
        ("a: 1\nb: *canary", 2, "this alias has no anchor before it"),
        ("a: &canary [*canary]", 1, "this alias has no anchor before it"),
        ("a: 1\nb: !canary x", 2, "this tag is not understood"),
        ("a: !!python/object:canary {}", 1, "this tag is not understood"),
        ("a: !!set {canary}", 1, "this tag is not understood"),
        ("a: !!omap [canary: 1]", 1, "this tag is not understood"),
        ("a: !!binary canary", 1, "this tag is not understood"),
        ("a: !!int canary", 1, "this value does not fit its tag"),
        ("a: !!int ''", 1, "this value does not fit its tag"),
        ("a: !!bool canary", 1, "this value does not fit its tag"),
        ("a: !!int 1_0", 1, "this value does not fit its tag"),
        ("a: !!int 1:30", 1, "this value does not fit its tag"),
        ("a: !!bool yes", 1, "this value does not fit its tag"),
        ("a: !!null canary", 1, "this value does not fit its tag"),
        ("a: !!float canary", 1, "this value does not fit its tag"),
        ("<<: canary", 1, "<< takes a mapping, or a list of mappings"),
        ("<<: [{}, canary]", 1, "<< takes a mapping, or a list of mappings"),
        ("a: 1\n---\nb: canary", 2, "a second document begins here: one file holds one"),
        ("# canary", None, "the file holds nothing but comments"),
        ("[" * (DEPTH_LIMIT + 1), 1, f"more than {DEPTH_LIMIT} mappings and lists inside each other"),
        ("\n" + "[" * 100_000, 2, f"more than {DEPTH_LIMIT} mappings and lists inside each other"),
        ("a: 1\nb: c: canary", 2, None),
        ("a: 1\nb: canary\x01", 2, "this is not valid YAML (a character that YAML does not allow)"),
        ("a: [canary", None, None),
        ("a: 1\nb: @canary", 2, None),
        ('a: "canary\\q"', 1, None),
        ("- a\nb: canary", 2, None),
    ],
)
def test_broken_yaml_is_refused_with_a_line(
    loader: type, text: str, line: int | None, reason: str | None
) -> None:
    """What is wrong is said with file and line, and without a piece of the content."""
    problem = problem_of(lambda: parse_yaml(NAME, text.encode(), loader))
    assert "canary" not in problem
    assert problem.startswith(reason or "this is not valid YAML")
    place = problem.rpartition(" @ ")[2]
    assert place.startswith("cluster.yaml:")
    if line is not None:
        assert place == f"cluster.yaml:{line}"


ZERO = Unclear("a number does not begin with 0: leave the 0 out, or put quotes around it if it is text")
LONG = Unclear("this number has too many digits: put quotes around it if it is text")


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(
    ("value", "texts"),
    [
        (None, ["", "~", "null", "Null", "NULL"]),
        (True, ["true", "True", "TRUE", "!!bool true"]),
        (False, ["false", "False", "FALSE"]),
        (0, ["0", "-0", "+0", "0x0", "0o0"]),
        (443, ["443", "+443", "0x1BB", "0x1bb", "0o673", "!!int 443"]),
        (-5, ["-5"]),
        (2**70, [str(2**70)]),
        (0.5, ["0.5", ".5", "+.5", "5e-1", "5E-1", "0.05e1", "!!float .5"]),
        (-0.5, ["-.5", "-0.5"]),
        (1000.0, ["1e3", "1e+3", "1000.", "1.0e3", "!!float 1000"]),
        (math.inf, [".inf", ".Inf", ".INF", "+.inf", "1e999"]),
        (-math.inf, ["-.inf"]),
        (ZERO, ["0443", "010", "-017", "+08", "08080", "00", "010.5", "00.5", "01e5", "!!int 010"]),
        (LONG, ["9" * 5000, "0x" + "f" * 5000] if sys.int_info.default_max_str_digits else []),
    ],
)  # fmt: skip
def test_plain_scalars_have_one_meaning(loader: type, value: object, texts: list[str]) -> None:
    """A plain scalar means what it does in YAML 1.2, and a number with a leading zero means nothing."""
    for text in texts:
        if value == LONG and text.startswith("0x"):
            continue
        found = parse_yaml(NAME, f"a: {text}".encode(), loader)
        assert found == {"a": value}, text
        assert isinstance(found, dict)
        assert type(found["a"]) is type(value), text


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(
    "text",
    [
        "on", "off", "yes", "no", "y", "n", "NO", "On", "nULL", "tRUE", "nil",
        "22:22", "1:30", "12:30:45", "190:20:30.15", "2026-01-02", "2026-01-02T10:00:00Z", "01-02-2026", "010.0.0.1",
        "1_000", "1_0.5", "-0x1F", "0X1F", "0o8", "-0o17", "0b11", "0x", "0x_1", "1,000", "1 000", "1.2.3", "1e", "e3", "+", "-x",
        "inf", "nan", ".infinity", "-.nan", ".", "..", "1.e", "=", "٣", "１２", "½", "0.5.", "--5", "1-2", "0-1",
    ],
)  # fmt: skip
def test_everything_else_is_text(loader: type, text: str) -> None:
    """What YAML 1.1 took for numbers of base 60, with underscores, for dates and for booleans is the text that it is."""
    assert parse_yaml(NAME, f"a: {text}\nb: !!str {text}\nc: ! {text}".encode(), loader) == {
        "a": text, "b": text, "c": text,
    }  # fmt: skip
    assert parse_yaml(NAME, f"- '{text}'\n- {text}".encode(), loader) == [text, text]


def test_a_number_that_is_not_one_in_yaml_1_2_is_no_number() -> None:
    """`.nan` is one, though it cannot be compared."""
    found = parse_yaml(NAME, b"[.nan, .NaN, .NAN]")
    assert isinstance(found, list)
    assert all(math.isnan(value) for value in found)


@pytest.mark.parametrize("key", ["on", "y", "22:22", "1_000", "2026-01-02"])
def test_keys_are_text_as_values_are(key: str) -> None:
    """A variable may be called `on`."""
    assert parse_yaml(NAME, f"{key}: x".encode()) == {key: "x"}


UNCLEAR_RECORDS = """\
configData: {id: c1}
services:
  - id: octal
    data:
      name: octal
      ports:
        web: 0443
        custom: {a.example.com: 010}
      resources: {cpuLimit: 1:30}
      environment:
        A: 0x1F
        with.dot: 1.10
        B: on
  - id: good
    data:
      name: good
      environment: {EMPTY: , NULL_: null, TILDE: ~, ON: on, DATE: 2026-01-02, TIME: 12:30:45}
  - {id: nameless}
images: [{id: i1}]
"""


@pytest.mark.parametrize("name", ["c.yaml", "c.conf", "c"])
async def test_a_record_with_an_unclear_value_is_rejected_alone_with_its_line(
    name: str, tmp_path: Path
) -> None:
    """Every wrong value is named with its path and its line, and says what to write instead; the rest is read."""
    path = tmp_path / name
    path.write_text(UNCLEAR_RECORDS)
    records = await FileCloudly(path).records()
    octal, nameless, image = records.rejected
    assert sorted(octal.reasons) == sorted([
        f"{ZERO.text} @ $.services[0].data.ports.web ({path}:7)",
        f"{ZERO.text} @ $.services[0].data.ports.custom.a.example.com ({path}:8)",
        f"expected a number, got text: write a number, without quotes or a unit @ $.services[0].data.resources.cpuLimit ({path}:9)",
        f"expected text, got an integer: put quotes around it @ $.services[0].data.environment.A ({path}:11)",
        f"expected text, got a number: put quotes around it @ $.services[0].data.environment.with.dot ({path}:12)",
    ])  # fmt: skip
    assert nameless.reasons == (f"name is missing @ $.services[2].name ({path}:18)",)
    assert image.reasons == (f"location is missing @ $.images[0].location ({path}:19)",)
    (good,) = records.services
    assert good.environment == {"ON": "on", "DATE": "2026-01-02", "TIME": "12:30:45"}


async def test_a_document_that_cannot_be_used_has_lines_too(tmp_path: Path) -> None:
    """Problems of the whole document name their line, unless they are about what is not there at all."""
    path = tmp_path / "c.yaml"
    path.write_text("\nconfigData: 5\nimages: {}\n")
    with pytest.raises(InvalidRecord) as caught:
        await FileCloudly(path).records()
    assert [str(problem) for problem in caught.value.problems] == [
        f"expected a mapping, got an integer @ $.configData ({path}:2)",
        "services is missing: write an empty list if there shall be no services @ $.services",
        f"expected a list, got a mapping @ $.images ({path}:3)",
    ]


async def test_lines_of_a_file_that_is_no_cluster_file_are_not_shown(tmp_path: Path) -> None:
    """Its lines may be keys, of which none is told but where it is."""
    path = tmp_path / "shadow"
    path.write_text("root:$6$CANARY:19000:0:99999:7:::\nme:$6$CANARY:19000:0:99999:7:::\n")
    with pytest.raises(InvalidRecord) as caught:
        await FileCloudly(path).records()
    told = str(caught.value)
    assert "CANARY" not in told + repr(caught.value)
    assert f"({path}:1)" in told
    assert f"({path}:2)" in told


def test_lines_of_merged_and_aliased_values_are_where_they_are_used() -> None:
    """A path leads to the line of the key, of the list's element, or of the alias that brings it in."""
    text = "a: &a\n  x: [1,\n    2]\nb:\n  <<: *a\nc: *a\nd:\n- e\n-\n  f: g\n'h.i': j\n"
    assert yaml_lines(text.encode()) == {
        "$": 1, "$.a": 1, "$.a.x": 2, "$.a.x[0]": 2, "$.a.x[1]": 3, "$.b": 4, "$.b.<<": 5, "$.c": 6,
        "$.d": 7, "$.d[0]": 8, "$.d[1]": 10, "$.d[1].f": 10, "$.h.i": 11,
    }  # fmt: skip


@pytest.mark.parametrize("indent", [None, 1])
@given(data=st.data())
def test_every_value_of_json_has_a_line(indent: int | None, data: st.DataObject) -> None:
    """The same of JSON, on one line or on many, whatever its texts hold."""
    document = data.draw(VALUES)
    text = json.dumps(document, indent=indent)
    _check_lines(document, json_lines(text.encode()), text)
    assert indent or set(json_lines(text.encode()).values()) == {1}


def test_lines_of_json_are_those_of_its_keys() -> None:
    """A path leads to the line of the key, or of the list's element."""
    text = '{\n "a": [1,\n  {"b\\n{": "}\\"",\n   "c":\n  null}], "d": -1.5e3\n}'
    assert json_lines(text.encode()) == {
        "$": 1, "$.a": 2, "$.a[0]": 2, "$.a[1]": 3, "$.a[1].b\n{": 3, "$.a[1].c": 4, "$.d": 5,
    }  # fmt: skip


@given(data=st.data())
def test_every_value_has_a_line(data: st.DataObject) -> None:
    """Whatever a document is, every value that was read has a line in it."""
    document = data.draw(VALUES)
    text = yaml.safe_dump(document, allow_unicode=True)
    _check_lines(document, yaml_lines(text.encode()), text)


def _check_lines(value: object, lines: Mapping[str, int], text: str, path: str = "$") -> None:
    assert 1 <= lines[path] <= text.count("\n") + 1
    for key, item in value.items() if isinstance(value, dict) else ():
        _check_lines(item, lines, text, f"{path}.{key}")
    for index, item in enumerate(value) if isinstance(value, list) else ():
        _check_lines(item, lines, text, f"{path}[{index}]")


def test_the_deepest_nesting_is_read() -> None:
    """As many collections inside each other as the limit says are fine."""
    value = parse_yaml(NAME, b"[" * DEPTH_LIMIT + b"]" * DEPTH_LIMIT)
    for _ in range(DEPTH_LIMIT - 1):
        assert isinstance(value, list)
        (value,) = value
    assert value == []


def test_aliases_do_not_multiply() -> None:
    """A document of aliases to aliases is as small in memory as in the file."""
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 10))]
    document = parse_yaml(NAME, "\n".join(lines).encode())
    assert isinstance(document, dict)
    assert document["a9"][0] is document["a9"][1] is document["a8"]


@pytest.mark.parametrize("anchor", ["[x]", "{x: x}", f"[{'x' * 100_000}]", "x"])
@pytest.mark.parametrize("use", ["[{0}, {0}]", "{{<<: {{a: {0}, b: {0}}}}}"])
def test_aliases_bring_in_no_more_than_anybody_can_read(anchor: str, use: str) -> None:
    """A few lines of aliases to aliases stand for any number of values, which whoever looks at all of them never ends with."""
    lines = [f"a0: &a0 {anchor}", *(f"a{n}: &a{n} {use.format(f'*a{n - 1}')}" for n in range(1, DEPTH_LIMIT))]
    problem = problem_of(lambda: parse_yaml(NAME, "\n".join(lines).encode()))
    assert problem.startswith("aliases bring in more than a cluster file may hold @ ")


def test_many_aliases_of_something_small_are_read() -> None:
    """What is shared by very many services is no reason to refuse a file."""
    lines = ["shared: &shared {LOG: debug, REGION: north}", "all:", *["- *shared"] * 20_000]
    document = parse_yaml(NAME, "\n".join(lines).encode())
    assert isinstance(document, dict)
    assert len(document["all"]) == 20_000


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")))
VALUES: st.SearchStrategy[object] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=20,
)


class Quoting(yaml.SafeDumper):
    """Quotes every text. PyYAML itself writes for readers of YAML 1.1 and leaves `0E0`, a number in 1.2, as it is."""


Quoting.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)


@given(VALUES)
@example("0E0")
@example({"0E0": None})
def test_json_and_yaml_mean_the_same(document: object) -> None:
    """A document written as JSON is read the same by both parsers, and one written as YAML comes back as it was."""
    text = yaml.dump(document, Dumper=Quoting, allow_unicode=True)
    assert parse_yaml(NAME, text.encode()) == document
    assert parse_json(NAME, orjson.dumps(document)) == document


@given(st.data())
def test_no_damage_shows_content(data: st.DataObject) -> None:
    """Whatever happens to a file, an error shows nothing of it."""
    document = {"a": "CANARYCANARY", "b": ["CANARYCANARY", {"CANARYCANARY": 1.5}]}
    is_json = data.draw(st.booleans())
    text = json.dumps(document, indent=1) if is_json else yaml.safe_dump(document)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(start + 3, len(text))))
    junk = data.draw(st.text("[]{}:,-'\"#&*!%@\n\t\x00 ä", max_size=3))
    damaged = (text[:start] + junk + text[end:]).encode()
    shown = ""
    try:
        if is_json:
            parse_json(NAME, damaged)
        else:
            parse_yaml(NAME, damaged, data.draw(st.sampled_from(LOADERS)))
    except InvalidRecord as exc:
        shown = f"{exc} {exc!r} {exc.__context__!r} {exc.__cause__!r}"
    assert "CANA" not in shown


# JSON, and which is which


@given(VALUES)
def test_keys_that_occur_once_are_no_problem(document: object) -> None:
    """The same key in different mappings, and text that looks like a key, is fine."""
    wrapped = {"a": document, "b": [document, {"a": '{"a": 1}'}]}
    assert parse_json(NAME, orjson.dumps(wrapped)) == wrapped


@pytest.mark.parametrize(
    ("data", "line", "reason"),
    [
        (b'{\n"a": canary}', 2, "this is not valid JSON (unexpected character"),
        (b'{"a": 1', 1, "this is not valid JSON ("),
        (b'{\n\n"a": "\xff canary"}', 3, "this is not text in UTF-8"),
        (b"[" * 100_000, 1, "this is not valid JSON ("),
        (
            b'{"a": 1,\n"b": {"c": 1,\n"canary": [{"c": 2}],\n"c": 3}}',
            4,
            "this key occurs twice in its mapping",
        ),
        (b'{"a":"\\"}",\n"\\u0061" : "canary"}', 2, "this key occurs twice in its mapping"),
        (b'{"a": NaN}', 1, "this is not valid JSON ("),
        (b'{"a": 0443}', 1, "this is not valid JSON ("),
        (b'{"a": "\\ud800 canary"}', 1, "this is not valid JSON ("),
    ],
)
def test_broken_json_is_refused_with_a_line(data: bytes, line: int, reason: str) -> None:
    """What is wrong is said with file and line, and without a piece of the content."""
    problem = problem_of(lambda: parse_json(NAME, data))
    assert problem.startswith(reason)
    assert problem.endswith(f" @ cluster.yaml:{line}")
    assert "canary" not in problem


def test_yaml_in_another_encoding_is_refused() -> None:
    """Bytes that are not UTF-8 are named by their line."""
    assert (
        problem_of(lambda: parse_yaml(NAME, b"a: 1\nb: \xff")) == "this is not text in UTF-8 @ cluster.yaml:2"
    )


YAML = yaml.safe_dump(DOCUMENT)
JSON = json.dumps(DOCUMENT)
FLOW = "{configData: {id: c1}, services: [{id: s1, data: {name: shop}}]}"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.yaml", YAML),
        ("c.YML", YAML),
        ("c.yaml", JSON),
        ("c.json", JSON),
        ("c.json", f"\ufeff{JSON}"),
        ("c.yaml", f"\ufeff{YAML}"),
        ("c", YAML),
        ("c.conf", JSON),
        ("c.conf", f"\n {JSON}"),
        ("c.conf", FLOW),
    ],
)
async def test_the_suffix_tells_the_format(name: str, content: str, tmp_path: Path) -> None:
    """JSON and YAML are known by their suffix, and by their looks where there is another suffix or none."""
    path = tmp_path / name
    path.write_text(content)
    (service,) = (await FileCloudly(path).records()).services
    assert service.name == "shop"


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("c.json", YAML, "this is not valid JSON ("),
        ("c.yaml", "", "the file is empty: perhaps it is being written @ {}:1"),
        ("c.json", "", "the file is empty: perhaps it is being written @ {}:1"),
        ("c.json", "\ufeff \n", "the file is empty: perhaps it is being written @ {}:1"),
        ("c.conf", "{a: [}", "this is not valid JSON ("),
        ("c.yaml", "text", "expected a mapping, got text @ {}"),
        (
            "c.yaml",
            "configData: {id: c1}",
            "services is missing: write an empty list if there shall be no services @ $.services",
        ),
    ],
)
async def test_a_broken_file_is_an_invalid_record(
    name: str, content: str, problem: str, tmp_path: Path
) -> None:
    """A file whose content cannot be used as a whole is refused with the reason."""
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(InvalidRecord) as caught:
        await FileCloudly(path).records()
    assert str(caught.value).startswith(problem.format(path))


# reading


async def test_a_missing_file_is_unavailable(tmp_path: Path) -> None:
    """A file that is not there, or no file, is told by name and reason, and may be there later."""
    path = tmp_path / "c.yaml"
    cloudly = FileCloudly(path)
    with pytest.raises(Unavailable, match=f"^{path}: No such file or directory$"):
        await cloudly.records()
    path.mkdir()
    with pytest.raises(
        Unavailable, match=f"^{path}: the folder has no file that ends in .yaml, .yml, .json$"
    ):
        await cloudly.records()
    path.rmdir()
    path.write_text(YAML)
    assert (await cloudly.records()).cluster.id == "c1"


async def test_a_file_that_was_broken_for_a_while_gives_the_same_records(tmp_path: Path) -> None:
    """What was read before a mistake is still known after it was undone."""
    path = tmp_path / "c.yaml"
    path.write_text(YAML)
    cloudly = FileCloudly(path)
    before = await cloudly.records()
    path.write_text("{")
    with pytest.raises(InvalidRecord):
        await cloudly.records()
    path.write_text(YAML)
    assert await cloudly.records() is before


async def test_other_bytes_with_the_same_meaning_keep_the_records_inside(tmp_path: Path) -> None:
    """A file that was only formatted anew gives services that are the same objects."""
    path = tmp_path / "c.conf"
    path.write_text(YAML)
    cloudly = FileCloudly(path)
    before = await cloudly.records()
    path.write_text(JSON)
    after = await cloudly.records()
    assert after is not before
    assert after.services[0] is before.services[0]


def test_a_file_that_changes_meanwhile_is_not_used(tmp_path: Path) -> None:
    """Content that somebody wrote to while it was read is not used."""
    path = tmp_path / "c.yaml"
    path.write_text(YAML)

    def read(descriptor: int, size: int) -> bytes:
        with path.open("ab") as other:
            other.write(b"#")
        return os.read(descriptor, size)

    with pytest.raises(OSError, match="it is being written"):
        read_file(path, len(YAML) + 100, lambda d, n: b"" if os.lseek(d, 0, os.SEEK_CUR) else read(d, n))


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("/dev/zero", "it is a device, not a file"),
        ("/dev/random", "it is a device, not a file"),
        ("pipe", "it is a named pipe, not a file"),
        ("socket", "it is a socket, not a file|No such device or address"),
        ("folder", "the folder has no file that ends in .yaml"),
        ("missing", "No such file or directory"),
        ("large", "it has more than 256 MiB"),
    ],
)
async def test_what_is_no_cluster_file_is_said_at_once(place: str, reason: str, tmp_path: Path) -> None:
    """Whatever a path leads to is neither waited for nor read without an end."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with (tmp_path / "large").open("wb") as file:
        file.truncate(FILE_LIMIT + 1)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        with pytest.raises(Unavailable, match=f"^{tmp_path / place}: ({reason})"):
            await FileCloudly(tmp_path / place).records()


async def test_a_silent_pipe_can_be_left() -> None:
    """Whoever waits for a command that says nothing can be cancelled, and what it says later is read by the next."""
    read, write = os.pipe()
    try:
        cloudly = FileCloudly(f"/dev/fd/{read}")
        with trio.move_on_after(0.05) as scope:
            await cloudly.records()
        assert scope.cancelled_caught
        os.write(write, YAML.encode())
        os.close(write)
        with trio.fail_after(5), pytest.raises(InvalidRecord):  # the reader that was left has taken it all
            await cloudly.records()
    finally:
        os.close(read)


async def test_the_null_device_is_an_empty_file() -> None:
    """It is what people put in the place of a file that shall not be there."""
    with pytest.raises(InvalidRecord, match="the file is empty"):
        await FileCloudly("/dev/null").records()


class Counting(FileCloudly):
    """Counts how often the file is read."""

    reads = 0

    async def _read(self) -> Any:
        self.reads += 1
        return await super()._read()


async def test_many_certificates_are_one_reading(tmp_path: Path) -> None:
    """Asked for one by one or at once, a thousand hosts cost one reading of the file, and a change one more."""
    path = tmp_path / "c.yaml"
    hosts = [f"h{number}.example.com" for number in range(1000)]
    certificates = {host: {"domainName": host, "privateKey": "k", "publicKey": "p"} for host in hosts}
    path.write_text(json.dumps({**DOCUMENT, "certificates": certificates}))
    cloudly = Counting(path)
    for _ in range(2):
        for host in hosts[:100]:
            await cloudly.certificate(host)
        async with trio.open_nursery() as nursery:
            for host in hosts:
                nursery.start_soon(cloudly.certificate, host)
    assert cloudly.reads == 1
    path.write_text(json.dumps({**DOCUMENT, "certificates": certificates}) + "\n")
    async with trio.open_nursery() as nursery:
        for host in hosts:
            nursery.start_soon(cloudly.certificate, host)
    assert cloudly.reads == 2


async def test_lists_that_are_one_by_an_alias_are_all_read(tmp_path: Path) -> None:
    """A document is let go while it is decoded; what two names stand for is there for both."""
    path = tmp_path / "c.yaml"
    path.write_text(
        "configData: {id: c1}\nservices: &all []\nimages: &i [{id: a, location: {internal: true}}]\nsecretGroups: *i\n"
    )
    records = await FileCloudly(path).records()
    assert list(records.images) == ["a"]
    assert [(one.kind, one.id) for one in records.rejected] == [("secret group", "a")]


async def test_certificates_are_read_with_the_file_and_not_again(tmp_path: Path) -> None:
    """One that was replaced in the file is found by the next question; the file is not read for each of them."""
    path = tmp_path / "c.yaml"

    def write(key: str) -> None:
        one = {"domainName": "a.example.com", "privateKey": key, "publicKey": "p"}
        (tmp_path / "new").write_text(json.dumps({**DOCUMENT, "certificates": {"a.example.com": one}}))
        (tmp_path / "new").rename(path)

    write("first")
    cloudly = FileCloudly(path)
    assert (await cloudly.certificate("a.example.com")).private_key == "first"
    known = await cloudly.certificate("a.example.com")
    assert await cloudly.certificate("A.example.com.") is known
    write("other")
    assert (await cloudly.certificate("a.example.com")).private_key == "other"
    path.write_text("services: [oops")
    with pytest.raises(Unreadable, match="cannot be used as it is now") as caught:
        await cloudly.certificate("a.example.com")
    assert "oops" not in str(caught.value)
    path.unlink()
    with pytest.raises(Unreadable, match="No such file"):
        await cloudly.certificate("a.example.com")


async def test_a_pipe_can_be_read(tmp_path: Path) -> None:
    """The output of a command can be the cluster file, once."""
    read, write = os.pipe()
    try:
        os.write(write, YAML.encode())
        os.close(write)
        assert (await FileCloudly(f"/dev/fd/{read}").records()).cluster.id == "c1"
    finally:
        os.close(read)


async def test_two_readers_get_the_same_records(tmp_path: Path) -> None:
    """Calls at the same time are answered one after the other, from one decoding."""
    path = tmp_path / "c.yaml"
    path.write_text(YAML)
    cloudly = FileCloudly(path)
    found = []

    async def read() -> None:
        found.append(await cloudly.records())

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(read)
    assert all(records is found[0] for records in found)


@contextmanager
def collecting(*, enabled: bool) -> Iterator[None]:
    """The garbage collector on or off, and afterwards as before."""
    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        yield
    finally:
        (gc.enable if before else gc.disable)()


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("ending", ["]}", ""])
async def test_a_large_file_leaves_the_collector_as_it_was(
    enabled: bool, ending: str, tmp_path: Path
) -> None:
    """Garbage collection is on or off after a large file as it was before, also when the file is broken."""
    path = tmp_path / "c.json"
    path.write_text('{"configData": {"id": "c1"}, "services": [' + " " * LARGE_DOCUMENT + ending)
    with collecting(enabled=enabled):
        if ending:
            await FileCloudly(path).records()
        else:
            with pytest.raises(InvalidRecord):
                await FileCloudly(path).records()
        assert gc.isenabled() is enabled


# URLs


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///etc/cluster.yaml", "/etc/cluster.yaml"),
        ("file://localhost/etc/cluster.yaml", "/etc/cluster.yaml"),
        ("file:/etc/cluster.yaml", "/etc/cluster.yaml"),
        ("FILE:///a%20b/%C3%A4%3F%23.yaml", "/a b/ä?#.yaml"),
    ],
)
def test_a_url_names_a_file(url: str, path: str) -> None:
    """The path of a `file:` URL is absolute, and percent-encoding is undone."""
    assert FileCloudly.from_url(url).path == Path(path)


def test_a_path_survives_as_a_url(tmp_path: Path) -> None:
    """What `Path.as_uri` makes of a path leads back to it, bytes that are no text included."""
    for name in ("a b%#?.yaml", "ä€.yaml", "\udcff.yaml"):
        path = tmp_path / name
        assert FileCloudly.from_url(path.as_uri()).path == path


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("file://cluster.yaml", "three slashes"),
        ("file://folder/cluster.yaml", "three slashes"),
        ("file:cluster.yaml", "three slashes"),
        ("file:///a?b", "write ? as %3F"),
        ("file:///a#b", "write ? as %3F"),
        ("file:///a%00b", "a path only"),
        ("https://example.com/a", "begins with file:"),
        ("/etc/cluster.yaml", "begins with file:"),
    ],
)
def test_a_url_of_no_file_is_refused(url: str, text: str) -> None:
    """A URL without an absolute path is refused with what it should look like."""
    with pytest.raises(PreconditionFailed) as caught:
        FileCloudly.from_url(url)
    assert text in str(caught.value)


# archives


def image(storage_path: str | None) -> ImageSpec:
    """An image whose archive is said to be at this path."""
    return ImageSpec(
        reference="img-shop:1.4",
        owner=Owner("s1"),
        stage=Stage.WORKLOADS,
        image_id="img-shop",
        version="1.4",
        storage_path=storage_path,
    )


async def read_archive(cloudly: FileCloudly, storage_path: str | None) -> list[bytes]:
    async with cloudly.archive(image(storage_path)) as pieces:
        return [piece async for piece in pieces]


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    """A cluster file in a folder of its own, with one archive beside it and one outside."""
    folder = tmp_path / "cluster"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "shop.tar").write_bytes(b"inside")
    (tmp_path / "outside.tar").write_bytes(b"outside")
    path = folder / "cluster.yaml"
    path.write_text(YAML)
    return path


@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1, 3 * CHUNK])
async def test_an_archive_comes_in_pieces(size: int, cluster: Path) -> None:
    """An archive arrives whole, in pieces of at most a mebibyte."""
    content = os.urandom(size)
    (cluster.parent / "shop.tar.gz").write_bytes(content)
    pieces = await read_archive(FileCloudly(cluster), "shop.tar.gz")
    assert b"".join(pieces) == content
    assert len(pieces) == -(-size // CHUNK)


@pytest.mark.parametrize("path", ["images/shop.tar", "./images/shop.tar", "images/../images/shop.tar"])
async def test_an_archive_is_beside_the_cluster_file(path: str, cluster: Path) -> None:
    """A path that stays in the folder of the cluster file leads to the archive."""
    assert await read_archive(FileCloudly(cluster), path) == [b"inside"]


async def test_the_folder_may_be_a_link(cluster: Path, tmp_path: Path) -> None:
    """What counts is where the folder of the cluster file really is; links inside that stay inside are fine."""
    (tmp_path / "link").symlink_to(cluster.parent)
    (cluster.parent / "latest.tar").symlink_to("images/shop.tar")
    cloudly = FileCloudly(tmp_path / "link" / "cluster.yaml")
    assert await read_archive(cloudly, "images/shop.tar") == [b"inside"]
    assert await read_archive(cloudly, "latest.tar") == [b"inside"]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (None, "the record has no storagePath"),
        ("", "the record has no storagePath"),
        ("images/other.tar", "No such file or directory"),
        ("images/shop.tar/x", "Not a directory"),
        ("images", "not a file"),
        (".", "not a file"),
        ("../outside.tar", "must be relative and stay inside"),
        ("link.tar", "must be relative and stay inside"),
        ("/outside.tar", "must be relative and stay inside"),
        ("loop.tar", None),
        ("null\0.tar", "not a usable path"),
        ("x" * 300, "File name too long"),
    ],
)
async def test_an_archive_that_is_not_there_is_refused(
    path: str | None, text: str | None, cluster: Path
) -> None:
    """Entering says which image lacks its archive, where that should be, and why it is not taken."""
    (cluster.parent / "link.tar").symlink_to("../outside.tar")
    (cluster.parent / "loop.tar").symlink_to("loop.tar")
    with pytest.raises(Refused) as caught:
        await read_archive(FileCloudly(cluster), path)
    assert str(caught.value).startswith(f"image img-shop 1.4: archive {path or ''}".rstrip())
    assert (text or "") in str(caught.value)


async def test_an_absolute_path_inside_is_refused(cluster: Path) -> None:
    """A cluster file can be moved with its images; an absolute path would break that."""
    with pytest.raises(Refused, match="must be relative"):
        await read_archive(FileCloudly(cluster), str(cluster.parent / "images" / "shop.tar"))


async def test_an_archive_need_not_be_read_to_its_end(cluster: Path) -> None:
    """Whoever has seen enough leaves, and the file is closed."""
    (cluster.parent / "big.tar").write_bytes(bytes(3 * CHUNK))
    async with FileCloudly(cluster).archive(image("big.tar")) as pieces:
        assert len(await anext(pieces)) == CHUNK


async def test_a_disk_that_fails_is_unavailable() -> None:
    """An error while an archive is read may be over the next time."""
    cloudly = FileCloudly("/proc/self/cluster.yaml")
    with pytest.raises(Unavailable, match=r"^image img-shop 1\.4: archive mem: Input/output error$"):
        await read_archive(cloudly, "mem")  # nothing is mapped at its beginning


# changes


async def collect_yields(looks: list[int]) -> tuple[list[float], list[float]]:
    """Feed these states of a file to the watcher: when it looked, and when it yielded, in seconds."""
    states = iter(looks[1:])
    looked: list[float] = []
    yielded: list[float] = []

    async def look() -> Watched:
        state = next(states, None)
        if state is None:
            await trio.sleep_forever()
        looked.append(round(trio.current_time() - start, 6))
        return {Path("c.yaml"): (state or 0,)}

    start = trio.current_time()
    with trio.move_on_after(1000):
        async with aclosing(_differences({Path("c.yaml"): (looks[0],)}, look, 1.0)) as notices:
            async for _ in notices:
                yielded.append(round(trio.current_time() - start, 6))  # noqa: PERF401 - it ends by cancellation
    return looked, yielded


@pytest.mark.parametrize(
    ("looks", "yielded"),
    [
        ([1, 1, 1, 1], []),
        ([1, 2, 2, 2, 2], [1.1]),
        ([1, 1, 2, 2, 2], [2.1]),
        ([1, 2, 3, 4, 4, 4], [1.3]),
        ([1, 2, 2, 3, 3, 3], [1.1, 2.2]),
        ([1, 2, 1, 1, 1], [1.2]),
        ([1, 2], []),
    ],
)
async def test_a_change_is_told_once_it_rests(
    looks: list[int], yielded: list[float], autojump_clock: trio.testing.MockClock
) -> None:
    """A difference is told when two looks in a row agree again, and an unchanged file is never told."""
    assert (await collect_yields(looks))[1] == yielded


async def test_the_file_is_looked_at_in_intervals(autojump_clock: trio.testing.MockClock) -> None:
    """Between two looks at a file at rest is the interval; at one that changes, a tenth of it."""
    looked, _ = await collect_yields([1, 1, 1, 2, 2, 2])
    assert looked == [1, 2, 3, 3.1, 4.1]


def rewrite(path: Path) -> None:
    path.write_text(YAML + "# changed\n")


def replace(path: Path) -> None:
    beside = path.with_name("beside")
    beside.write_text(path.read_text() if path.exists() else YAML)
    beside.replace(path)


@pytest.mark.parametrize(
    "change",
    [
        rewrite,
        replace,
        Path.unlink,
        lambda path: path.chmod(0o600),
        lambda path: (path.unlink(), path.mkdir()),
    ],
)
async def test_every_kind_of_change_is_seen(change: Callable[[Path], object], tmp_path: Path) -> None:
    """Writing, replacing (by the same content, too), removing, and a change of who may read are all told."""
    path = tmp_path / "c.yaml"
    path.write_text(YAML)
    async with FileCloudly(path, poll_seconds=0).changes() as notices:
        change(path)
        with trio.fail_after(30):
            await anext(notices)


async def test_a_file_that_appears_is_seen(tmp_path: Path) -> None:
    """Watching begins before there is a file, or its folder, and goes on after it is gone."""
    path = tmp_path / "folder" / "c.yaml"
    async with FileCloudly(path, poll_seconds=0).changes() as notices:
        with trio.fail_after(30):
            path.parent.mkdir()
            replace(path)
            await anext(notices)
            path.unlink()
            await anext(notices)
            replace(path)
            await anext(notices)


async def test_a_link_that_leads_elsewhere_is_seen(tmp_path: Path) -> None:
    """A cluster file that is a link changes when the link does, as mounted configurations do."""
    for name in ("one", "two"):
        (tmp_path / name).write_text(YAML)
    path = tmp_path / "c.yaml"
    path.symlink_to("one")
    async with FileCloudly(path, poll_seconds=0).changes() as notices:
        (tmp_path / "next").symlink_to("two")
        (tmp_path / "next").replace(path)
        with trio.fail_after(30):
            await anext(notices)


async def test_watching_ends_when_it_is_cancelled(tmp_path: Path) -> None:
    """Whoever waits for a change can be cancelled at any time."""
    cloudly = FileCloudly(tmp_path / "c.yaml", poll_seconds=0)
    async with trio.open_nursery() as nursery:

        async def watch(task_status: trio.TaskStatus[None]) -> None:
            async with cloudly.changes() as notices:
                task_status.started()
                async for _ in notices:
                    pass

        await nursery.start(watch)
        nursery.cancel_scope.cancel()
