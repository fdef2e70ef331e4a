"""Fields that nobody reads: each is found, with what was probably meant, and nothing of a value."""

import random
import string
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from tests.unit.domain.records.test_codec import good
from tests.unit.domain.records.test_salvage import rendered_records

from coreflow.domain.deploy.desired import unknown_notes
from coreflow.domain.errors import InvalidRecord
from coreflow.domain.records.codec import UNKNOWN_LIMIT, RecordDecoder, decode_records
from coreflow.domain.records.keys import HIDDEN
from coreflow.domain.records.models import (
    BindingRecord,
    CertificateRecord,
    ClusterRecord,
    ExternalRegistryRecord,
    GatewayRecord,
    ImageRecord,
    PlatformRecord,
    Records,
    SecretBundleRecord,
    SecretGroupRecord,
    ServiceRecord,
)
from coreflow.domain.records.nearest import LONGEST, nearest, paths_of
from coreflow.domain.records.shapes import Fields, cluster_file, shape_of, walk
from coreflow.domain.records.unknown import FOUND_LIMIT, GUARDED, unknown_in

Json = dict[str, Any]
CANARY = "CANARY-8b1f"
MISTAKES = {
    "scaleFacto": "scaleFactor",
    "enviroment": "environment",
    "resource": "resources",
    "secretBundelId": "secretBundleId",
    "healthcheck": "healthCheck",
    "domain": "domains",
    "port": "ports",
    "antiaffinity": "antiAffinity",
    "volume": "volumes",
}
"""Nine slips that one file had."""


def service(**data: Any) -> Json:
    """A raw service record."""
    return {"id": "s1", "data": {"name": "web", "registryTarget": {"imageUrl": "web:1"}, **data}}


def document(*services: Json, **others: Any) -> Json:
    """A cluster document."""
    return {"configData": {"id": "c"}, "services": [*services], **others}


def told(records: Records) -> dict[str, str | None]:
    """The paths of the unknown fields, with what was probably meant."""
    return {one.path: one.suggestion for one in records.unknown}


def test_nine_mistakes_are_nine_notes() -> None:
    """Each is found at its path with the right name, and the record is used all the same."""
    records = decode_records(document(service(**dict.fromkeys(MISTAKES, CANARY))))
    assert told(records) == {f"$.services[0].data.{name}": meant for name, meant in MISTAKES.items()}
    assert {(one.kind, one.id, one.record) for one in records.unknown} == {("service", "s1", "web")}
    assert len(records.services) == 1
    assert CANARY not in repr(records.unknown) + "".join(map(str, records.unknown))
    assert str(records.unknown[0]) == (
        "nobody reads the field scaleFacto: did you mean scaleFactor? @ $.services[0].data.scaleFacto"
    )


def test_nine_mistakes_are_nine_errors_where_unknown_fields_are_errors() -> None:
    """They reject their record, together with what else is wrong with it; the other records are used."""
    bad = service(**dict.fromkeys(MISTAKES, CANARY), scaleFactor=CANARY)
    records = RecordDecoder(strict=True).decode(document(bad, {"id": "s2", "name": "b"}))
    (rejected,) = records.rejected
    assert (rejected.kind, rejected.id, rejected.name) == ("service", "s1", "web")
    assert [reason.partition(" @ ")[2] for reason in rejected.reasons] == [
        "$.services[0].data.scaleFactor",
        *(f"$.services[0].data.{name}" for name in MISTAKES),
    ]
    assert rejected.salvaged is not None
    assert [one.id for one in records.services] == ["s2"]
    assert records.unknown == ()
    assert CANARY not in str(rejected.reasons)


@pytest.mark.parametrize(
    ("raw", "path", "meant"),
    [
        ({**service(), "name": 1}, "name", "data.name"),
        ({**service(), "enviroment": 1}, "enviroment", "data.environment"),
        ({**service(), "Id": 1}, "Id", "id"),
        (service(id="x"), "data.id", "id beside data"),
        ({"id": "s", "name": "web", "scale_factor": 1}, "scale_factor", "scaleFactor"),
        ({"id": "s", "name": "web", "data": None, "x": None}, "x", None),
        (service(memorySizeLimitMB=1), "data.memorySizeLimitMB", "resources.memorySizeLimitMB"),
        (service(hostFsPath=1), "data.hostFsPath", "resources.volumeMounts[].hostFsPath"),
        (service(imageURL="x"), "data.imageURL", "registryTarget.imageUrl"),
        (service(resources={"cpu": 1}), "data.resources.cpu", "cpuLimit"),
        (service(resources={"memoryLimitMB": 1}), "data.resources.memoryLimitMB", "memorySizeLimitMB"),
        (service(domains=["a", {"name": "b", "prot": 1}]), "data.domains[1].prot", "port"),
        (service(ports={"custom": {"anything": 1}, "wb": 1}), "data.ports.wb", "web"),
        (service(registryTarget={"registryInfo": {"user": 1}}), "data.registryTarget.registryInfo.user", "username"),
        (service(description=1), "data.description", None),
    ],
)  # fmt: skip
def test_an_unknown_field_of_a_service(raw: Json, path: str, meant: str | None) -> None:
    """The nearest name of its level is suggested, else its place on another level, else nothing."""
    (found,) = unknown_in(raw, ServiceRecord)
    assert (found.path, found.suggestion) == (f".{path}", meant)


@pytest.mark.parametrize(
    ("others", "path", "meant"),
    [
        ({"secretBundle": []}, "$.secretBundle", "secretBundles"),
        ({"name": "x"}, "$.name", "configData.name"),
        ({"configData": {"id": "c", "data": {"nam": 1}}}, "$.configData.data.nam", "name"),
        ({"configData": {"id": "c", "nodes": [], "servers": []}}, "$.configData.servers", "nodes"),
        ({"configData": {"id": "c", "containers": []}}, "$.configData.containers", None),
        ({"images": [{"id": "i", "location": {"intern": True}}]}, "$.images[0].location.intern", "internal"),
        ({"images": [{"id": "i", "location": {}, "versions": [{"versionString": "1", "sise": 1}]}]}, "$.images[0].versions[0].sise", "size"),
        ({"secretGroups": [{"id": "g", "key": "K", "environments": {"any": {"value": "v", "valeu": 1}}}]}, "$.secretGroups[0].environments.any.valeu", "value"),
        ({"platform": {"binding": []}}, "$.platform.binding", "bindings"),
        ({"platform": {"bindings": [{"id": "b", "data": {"serviceId": "s", "capability": "database", "envprefix": 1}}]}}, "$.platform.bindings[0].data.envprefix", "envPrefix"),
        ({"platform": {"desiredState": {"revison": 1}}}, "$.platform.desiredState.revison", "revision"),
        ({"platform": {"desiredState": {}, "revision": 1}}, "$.platform.revision", "desiredState.revision"),
        ({"externalGatewayConfig": {"type": "dcrouter", "url": "u", "syncroutes": 1}}, "$.externalGatewayConfig.syncroutes", "syncRoutes"),
        ({"certificates": {"a.b": {"domainName": "a.b", "privateKey": "", "publicKey": "", "pubKey": ""}}}, "$.certificates.a.b.pubKey", "publicKey"),
    ],
)  # fmt: skip
def test_an_unknown_field_of_any_other_record(others: Json, path: str, meant: str | None) -> None:
    """Every kind of record is looked at; strictly, one that has such a field is not used."""
    raw = {**document(), **others}
    assert told(decode_records(raw)) == {path: meant}
    strict = RecordDecoder(strict=True)
    if path.startswith(("$.configData", "$.secretBundle", "$.name")):
        with pytest.raises(InvalidRecord) as caught:
            strict.decode(raw)
        assert [problem.path for problem in caught.value.problems] == [path]
    else:
        reasons = [reason for one in strict.decode(raw).rejected for reason in one.reasons]
        assert [reason.partition(" @ ")[2] for reason in reasons] == [path]


@pytest.mark.parametrize(
    "raw",
    [
        document(service(environment={"A": "b"}, ports={"custom": {"x": "1"}}, volumes=[{"mountPath": "/a", "options": {"o": "x"}}])),
        document({"id": "s", "name": "flat", "domains": ["plain"], "resources": {"memorySizeMB": 5}}),
        {"configData": {"id": "c", "data": {"containers": [service()], "servers": []}}},
        {"method": "getClusterConfig", "correlation": {}, "response": document(service())},
        document(**{"x-common": {"what": 1}, "$schema": "cluster.schema.json"}),
        document(platform={"bindings": [{"id": "b", "serviceId": "s", "capability": "database", "config": {"any": {"thing": [{}]}}}]}),
        good(),
    ],
)  # fmt: skip
def test_what_is_known(raw: Json) -> None:
    """Free keys, older and shorter spellings, captured answers and what is read without being used are no mistakes."""
    assert told(decode_records(raw)) == {}
    assert RecordDecoder(strict=True).decode(raw).rejected == ()


def test_paths_of_older_places_and_captured_answers_are_those_of_the_file() -> None:
    """A path leads to where the field was written."""
    older = {"configData": {"id": "c", "data": {"containers": [service(x=1)]}}}
    assert told(decode_records(older)) == {"$.configData.data.containers[0].data.x": None}
    captured = {"method": "m", "response": document(service(x=1), y=1)}
    assert set(told(decode_records(captured))) == {"$.response.y", "$.response.services[0].data.x"}


def test_a_misspelt_list_is_said_with_what_misses_it() -> None:
    """A document without `services` is refused; that `service` is there is the explanation."""
    with pytest.raises(InvalidRecord) as caught:
        decode_records({"configData": {"id": "c"}, "service": []})
    assert [str(problem) for problem in caught.value.problems] == [
        "services is missing: write an empty list if there shall be no services @ $.services",
        "nobody reads the field service: did you mean services? @ $.service",
    ]


def test_a_record_that_is_rejected_anyway_has_its_notes() -> None:
    """That `nmae` is unknown explains why `name` is missing."""
    records = decode_records(document({"id": "s", "data": {"nmae": "x"}}))
    assert records.rejected[0].reasons == ("name is missing @ $.services[0].data.name",)
    assert told(records) == {"$.services[0].data.nmae": "name"}


def test_an_unchanged_record_keeps_its_notes_wherever_it_moves() -> None:
    """What was found is remembered with the record; its path is that of the present document."""
    decoder = RecordDecoder()
    first = decoder.decode(document(service(x=1)))
    second = decoder.decode(document({"id": "s0", "name": "a"}, service(x=1)))
    assert second.services[1] is first.services[0]
    assert [list(told(one)) for one in (first, second)] == [
        ["$.services[0].data.x"],
        ["$.services[1].data.x"],
    ]


@pytest.mark.parametrize("key", ["x" * 10_000, "a\x1b[31m\nb", "\u202e", "\ud800"])
def test_a_hostile_name_is_told_on_one_short_line(key: str) -> None:
    """Nobody is fooled by the name of a field."""
    (found,) = unknown_in(service(**{key: 1}), ServiceRecord)
    assert str(found).isprintable()
    assert len(str(found)) < 200
    assert found.suggestion is None


SECRET = "hunter2"
AROUND = {"configData": {"id": "c"}, "services": [], "externalRegistries": [], "images": []}
LEAKS: list[tuple[str, str]] = [
    ("secretGroups: [{id: g, key: K, environments: {production: {value:SECRET}}}]", "of value"),
    ("secretGroups: [{id: g, key: K, environments: {production: {vaule:SECRET}}}]", "of value"),
    ("secretGroups: [{id: g, key: K, environments: {production: {SECRET}}}]", "not shown"),
    ("secretGroups: [{id: g, key: K, environments: {production:SECRET}}]", "a space is missing"),
    ("secretGroups: [{id: g, key: K, environments: {'production:SECRET': {value: 5}}}]", "(not shown)"),
    ("secretGroups: [{id: g, data: {key:SECRET, environments: {}}}]", "of key"),
    ("secretGroups: [{id: g, key: K, SECRET: x}]", "not shown"),
    ("externalRegistries: [{id: r, url: u, username: a, password:SECRET}]", "of password"),
    ("externalRegistries: [{id: r, url: u, username: a, password=SECRET: }]", "did you mean password?"),
    ("externalRegistries: [{id: r, url: u, SECRET: }]", "not shown"),
    ("configData: {id: c, registryInfo: {username: a, password:SECRET}}", "of password"),
    ("services: [{id: s, name: n, environment: {TOKEN:SECRET}}]", "a space is missing"),
    ("services: [{id: s, name: n, environment: {'TOKEN:SECRET': 5}}]", "(not shown)"),
    ("services: [{id: s, name: n, environment: {'TOKEN SECRET': 5}}]", "(not shown)"),
    ("services: [{id: s, name: n, environment: {'A=SECRET': x}, registryTarget: {imageUrl: 'a:1'}}]", ""),
    ("services: [{id: s, name: n, ports: {web: 80, custom: {'a:SECRET': no}}}]", "(not shown)"),
    ("services: [{id: s, name: n, volumes: [{mountPath: /a, options: {'o:SECRET': 5}}]}]", "(not shown)"),
    ("services: [{id: s, name: n, registryTarget: {registryInfo: {password:SECRET}}}]", "of password"),
    ("platform: {bindings: [{id: b, serviceId: s, capability: database, config: {'p:SECRET': .nan}}]}", "(not shown)"),
    ("externalGatewayConfig: {type: dcrouter, url: u, apiToken:SECRET}", "of apiToken"),
    ("certificates: {a.b: {domainName: a.b, publicKey: p, privateKey:SECRET}}", "of privateKey"),
    ("certificates: {a.b: {domainName: a.b, publicKey: p, SECRET: }}", "not shown"),
    ("certificates: {'a.b:SECRET': {domainName: 5}}", "(not shown)"),
    ("certificates: {'a.b:SECRET': {}, 'A.b:SECRET': {}}", "(not shown)"),
    ("certificates: {a.b:SECRET}", "a space is missing"),
    ("root:$6$SECRET:19000:0:99999:7::: ", "not shown"),
]  # fmt: skip
"""Slips that make a secret a key, or a part of one, with what is said of them."""


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(("text", "said"), LEAKS)
def test_a_value_that_became_a_key_is_not_told(text: str, said: str, *, strict: bool) -> None:
    """Neither in a problem, nor in a path, nor in a note, nor in what is known of a record."""
    raw = {**AROUND, **yaml.safe_load(text.replace("SECRET", SECRET))}
    assert SECRET in str(raw)
    try:
        records = RecordDecoder(strict=strict).decode(raw)
    except InvalidRecord as exc:
        found = str(exc)
    else:
        told = [*map(str, records.unknown), *(one.path for one in records.unknown), repr(records.unknown)]
        found = "\n".join((*told, *map(str, unknown_notes(records)), str(records.rejected)))
        found += str(rendered_records(records).rejections)
        if said:
            assert records.unknown or records.rejected
    assert SECRET not in found
    assert said in found


def test_a_mapping_with_secrets_is_guarded() -> None:
    """Every level with a password, a token, a key or a value of a secret; the value of a tag is none."""
    levels = {level.name: {*level.members} for _, _, level in _levels()}
    secret = {"password", "apiToken", "privateKey", "value"}
    assert {name for name, members in levels.items() if members & secret} | {"SecretGroup"} == GUARDED | {
        "Tag"
    }


@pytest.mark.parametrize(
    ("key", "is_shown"),
    [
        ("scaleFacto", True), ("scale-factor", True), ("http2Only", True), ("$ref", True), ("SCALE_FACTOR", True),
        ("scale factor", False), ("value:x", False), ("value=x", False), ("ghp0aB3dE5", False), ("a" * 33, False),
        ("MIIEvQIBADANBgkqhkiG9w0BAQEFAASC", False), ("c2VjcmV0==", False), ("", False), ("a.b", False),
    ],
)  # fmt: skip
def test_what_looks_like_a_field(key: str, *, is_shown: bool) -> None:
    """A name of letters, with one number at most; nothing that a generator of passwords would give."""
    (found,) = unknown_in(service(**{key: 1}), ServiceRecord)
    assert (key in found.path and bool(key)) is is_shown
    assert (HIDDEN in found.path) is not is_shown


def test_slips_are_told_even_where_values_are_secret() -> None:
    """What is like a known field says nothing new; most slips of one letter are."""
    shown, hidden = 0, 0
    draw = random.Random(5)
    for kind in (SecretGroupRecord, CertificateRecord, ExternalRegistryRecord, GatewayRecord):
        for name in shape_of(kind).members:
            if len(name) > 3:
                for slip in {*_slips(name, draw)} - {*shape_of(kind).members}:
                    (found,) = unknown_in({slip: CANARY}, kind)
                    shown += slip in found.path
                    hidden += HIDDEN in found.path
    assert shown / (shown + hidden) > 0.9, (shown, hidden)


def test_what_is_told_is_limited() -> None:
    """A record of nothing but unknown fields, or a document of such records, does not fill the screen."""
    many = service(**{f"field{n}": n for n in range(100)})
    assert len(unknown_in(many, ServiceRecord)) == FOUND_LIMIT
    services = [{**many, "id": f"s{n}"} for n in range(100)]
    assert len(decode_records(document(*services)).unknown) == UNKNOWN_LIMIT


@pytest.mark.parametrize("raw", [None, 5, [], {"data": []}, {"bindings": 5, "desiredState": 5}])
def test_what_is_no_record_has_no_fields(raw: object) -> None:
    """That it is none is said elsewhere."""
    assert [one.key for one in unknown_in(raw, PlatformRecord)] in ([], ["data"], ["desiredState"])


def _slips(name: str, draw: random.Random) -> Iterator[str]:
    """A letter left out, doubled, swapped with the next, or replaced; another case."""
    for index in range(len(name)):
        head, letter, tail = name[:index], name[index], name[index + 1 :]
        yield head + tail
        yield head + letter + letter + tail
        yield head + draw.choice(string.ascii_letters) + tail
        if tail:
            yield head + tail[0] + letter + tail[1:]
        yield head + letter.swapcase() + tail
    yield from (name.lower(), name.upper(), name.capitalize())


RECORDS = (
    BindingRecord,
    CertificateRecord,
    ClusterRecord,
    ExternalRegistryRecord,
    GatewayRecord,
    ImageRecord,
    PlatformRecord,
    SecretBundleRecord,
    SecretGroupRecord,
    ServiceRecord,
)


def _levels() -> Iterator[tuple[Fields, str, Fields]]:
    """Every mapping of a cluster file with the record that it is in."""
    file = cluster_file()
    yield file, "", file
    for kind in RECORDS:
        root = shape_of(kind)
        for path, level in walk(root):
            yield root, path, level


def test_slips_in_every_field_are_found_with_what_was_meant(
    draw: random.Random, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of all slips of one letter in all fields, 95 % and more are understood; the rate is printed."""
    right, wrong = 0, []
    for root, path, level in _levels():
        elsewhere = tuple(paths_of((where, other.members) for where, other in walk(root)))
        names = tuple(level.members)
        for name in names:
            for slip in {*_slips(name, draw)} - {*names, ""}:
                found = nearest(slip, names, elsewhere)
                right += found == name
                wrong += [f"{path}: {slip} for {name} became {found}"] if found != name else []
    rate = right / (right + len(wrong))
    with capsys.disabled():
        print(f"{right + len(wrong)} slips: {rate:.2%} understood")  # noqa: T201 - a figure to be seen
    assert rate >= 0.95, wrong
    assert right > 5000


def test_a_name_that_resembles_nothing_suggests_nothing() -> None:
    """No suggestion is better than a wrong one; an endless name is not compared at all."""
    names = tuple(shape_of(ServiceRecord).members)
    assert [nearest(word, names) for word in ("description", "x", "", "zzz", "comment")] == [None] * 5
    assert nearest("a" * (LONGEST + 1), ("a" * LONGEST,)) is None
