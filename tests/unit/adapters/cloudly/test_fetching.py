"""Records from Cloudly's answers, whichever of them it gives, and however badly."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from tests.unit.adapters.cloudly.stand_in import (
    BATCH,
    CRASH,
    MISSING,
    REJECTED,
    CloudlyStandIn,
    Json,
    follow,
    never,
    settle,
)
from trio.testing import MockClock

from coreflow.adapters.cloudly import NetworkCloudly
from coreflow.adapters.cloudly.fetching import CONCURRENCY, _Findings
from coreflow.adapters.cloudly.methods import COLLECTIONS, LOGIN, PUSH_CONFIG, PUSH_PLATFORM
from coreflow.domain.errors import InvalidRecord, Refused, Unavailable
from coreflow.domain.records.codec import RecordDecoder
from coreflow.domain.records.models import Records

CONFIG, SERVICES, IMAGES = "getClusterConfig", "getServices", "getAllImages"
PLATFORM, GATEWAY = "getPlatformDesiredState", "getExternalGatewayConfig"
CLUSTER: Json = {"id": "c1"}


def service(name: str, version: str = "1", **data: object) -> Json:
    """A service that refers to an image of its own."""
    return {
        "id": f"svc-{name}",
        "data": {"name": name, "imageId": f"img-{name}", "imageVersion": version, **data},
    }


def image(name: str) -> Json:
    """An image in the one registry."""
    return {"id": f"img-{name}", "data": {"location": {"internal": False, "externalRegistryId": "reg"}}}


def bundle(identity: str, **data: object) -> Json:
    """A bundle of secret groups."""
    return {"id": identity, "data": data}


def group(identity: str, value: str = "v") -> Json:
    """A secret group with one value."""
    return {"id": identity, "data": {"key": identity, "environments": {"production": {"value": value}}}}


def document(*names: str, version: str = "1") -> Json:
    """Two services (or these) with everything that they refer to, and things that nobody does."""
    names = names or ("a", "b")
    return {
        "configData": CLUSTER,
        "services": [
            service(name, version, secretBundleId="bun-1", additionalSecretBundleIds=["bun-2"])
            for name in names
        ],
        "images": [image(name) for name in (*names, "unused")],
        "externalRegistries": [{"id": "reg", "data": {"url": "registry.example"}}],
        "secretBundles": [
            bundle("bun-1", includedSecretGroupIds=["grp-1"]),
            bundle("bun-2", includedSecretGroupIds=["grp-1", "grp-2"]),
        ],
        "secretGroups": [group("grp-1"), group("grp-2"), group("unused")],
    }


def knowing(answers: Mapping[str, Any] | None = None, *names: str, batch: bool = True) -> CloudlyStandIn:
    """A Cloudly with this document, except for some answers."""
    far = CloudlyStandIn()
    far.know(document(*names), batch=batch)
    far.answers.update(answers or {})
    return far


def versions(records: Records) -> dict[str, str | None]:
    """Services with their versions."""
    return {found.name: found.image_version for found in records.services}


def rejected(records: Records) -> list[tuple[str, str | None, str]]:
    """What was wrong, in short."""
    return [(found.kind, found.id, "; ".join(found.reasons)) for found in records.rejected]


# --- what is unchanged


@pytest.mark.parametrize("batch", [True, False])
async def test_unchanged_answers_give_the_same_records(
    autojump_clock: MockClock, batch: bool, nursery: trio.Nursery
) -> None:
    """As one object, on a new connection, too; a change makes new objects of what changed only."""
    far = knowing(batch=batch)
    port = follow(far, nursery)
    before = await port.records()
    assert versions(before) == {"a": "1", "b": "1"}
    assert set(before.images) == {"img-a", "img-b"} | ({"img-unused"} if batch else set())
    assert set(before.external_registries) == {"reg"}
    assert set(before.secret_bundles) == {"bun-1", "bun-2"}
    assert set(before.secret_groups) == {"grp-1", "grp-2"} | ({"unused"} if batch else set())
    assert before.rejected == ()
    assert await port.records() is before
    assert (far.count(CONFIG), far.count(SERVICES)) == (1, 1)
    far.hang_up()
    await trio.sleep(5)
    assert await port.records() is before
    assert (far.count(CONFIG), far.count(SERVICES)) == (2, 1)
    changed = document()
    changed["services"][1]["data"]["imageVersion"] = "2"
    far.know(changed, batch=batch)
    after = await port.records()
    assert versions(after) == {"a": "1", "b": "2"}
    assert after.services[0] is before.services[0]
    assert after.images["img-a"] is before.images["img-a"]  # type: ignore[index]


async def test_everything_is_asked_for_at_once(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """A pass costs one round trip."""
    far = knowing()

    def slowly(answer: Any) -> Callable[[object], Any]:
        async def wait(_: object) -> Any:
            await trio.sleep(1)
            return answer

        return wait

    for name in (CONFIG, SERVICES, *BATCH):
        far.answers[name] = slowly(far.answers[name])
    port = follow(far, nursery)
    for seconds in (1, 2):
        await port.records()
        assert trio.current_time() == pytest.approx(seconds)


# --- the frame


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"services": "secret"}, "@ $.services"),
        ({"services": None}, "@ $.services"),
        ({}, "@ $.services"),
        (None, "getServices was answered without a result"),
        (Refused("no"), "getServices is refused: no"),
        ([], "the answer to getServices is not an object @ $"),
    ],
)
async def test_services_that_cannot_be_used(
    autojump_clock: MockClock, answer: Any, why: str, nursery: trio.Nursery
) -> None:
    """The last records stay, and say why; the next good answer clears it."""
    far = knowing()
    port = follow(far, nursery)
    good = await port.records()
    far.answers[SERVICES] = answer
    kept = await port.records()
    ((kind, name, reason),) = rejected(kept)
    assert (kind, name) == ("answer to", SERVICES)
    assert why in reason
    assert "secret" not in reason
    assert kept.services is good.services
    assert await port.records() is kept
    far.know(document())
    cleared = await port.records()
    assert cleared == good
    assert await port.records() is cleared


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ({CONFIG: {}}, InvalidRecord),
        ({CONFIG: {"configData": CLUSTER, "services": {}}}, InvalidRecord),
        ({CONFIG: None}, Unavailable),
        ({CONFIG: Refused("no")}, Refused),
        ({CONFIG: {"configData": CLUSTER}, SERVICES: MISSING}, InvalidRecord),
    ],
)
async def test_a_first_answer_that_cannot_be_used(
    autojump_clock: MockClock, answers: Json, error: type[Exception], nursery: trio.Nursery
) -> None:
    """Without any records, what is wrong is raised; the next good answer is taken."""
    far = knowing(answers)
    port = follow(far, nursery)
    with pytest.raises(error):
        await port.records()
    far.know(document())
    assert versions(await port.records()) == {"a": "1", "b": "1"}


async def test_what_was_wrong_before_is_still_said(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """A bad record stays rejected while the answer that it came with stands in for later ones."""
    far = knowing()
    broken = {"id": "svc-c", "data": {"name": "c", "imageVersion": ["secret"]}}
    far.know({**document(), "services": [service("a"), broken]})
    port = follow(far, nursery)
    (first,) = rejected(await port.records())
    assert first[:2] == ("service", "svc-c")
    answers: tuple[Json | None, ...] = (None, {})
    for answer in answers:
        far.answers[SERVICES] = answer
        for _ in range(2):
            one, other = rejected(await port.records())
            assert (one, other[1]) == (first, SERVICES)


@pytest.mark.parametrize("place", [{"data": {}}, {}])
async def test_services_inside_the_cluster_record(
    autojump_clock: MockClock, place: Json, nursery: trio.Nursery
) -> None:
    """Where there is no method for services, they may be where they were long ago."""
    inside = {"containers": [service("a")]}
    config = {"id": "c1", **({"data": inside} if place else inside)}
    far = knowing({CONFIG: {"configData": config}, SERVICES: MISSING})
    port = follow(far, nursery)
    for _ in range(2):
        assert versions(await port.records()) == {"a": "1"}


async def test_services_by_their_own_method_only(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """Where they do not come with the cluster, they are asked for."""
    far = knowing({CONFIG: {"configData": CLUSTER}})
    assert versions(await follow(far, nursery).records()) == {"a": "1", "b": "1"}


# --- pushes


def pushed(*services: Json, **others: object) -> Json:
    """The body of a push."""
    return {"configData": CLUSTER, "services": list(services), **others}


async def test_a_push_is_used_once(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """Of several the newest, by exactly the next fetch, which then does not ask for services."""
    far = knowing()
    port = follow(far, nursery)
    await port.records()
    far.calls.clear()
    for version in ("2", "3"):
        await far.push(PUSH_CONFIG.name, pushed(service("a", version)))
    assert versions(await port.records()) == {"a": "3"}
    assert far.count(SERVICES) == far.count(CONFIG) == 0
    assert versions(await port.records()) == {"a": "1", "b": "1"}
    assert far.count(SERVICES) == 1


async def test_a_push_brings_a_gateway(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """It may stand beside the cluster, as in an answer."""
    far = knowing()
    port = follow(far, nursery)
    await port.records()
    await far.push(PUSH_CONFIG.name, pushed(externalGatewayConfig=GATE))
    assert gate(await port.records()) == GATE["url"]
    assert gate(await port.records()) == GATE["url"]


async def test_a_push_that_cannot_be_used(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """It is logged, with paths and without values, and the fetch asks instead."""
    far = knowing()
    port = follow(far, nursery)
    await port.records()
    with capture_logs() as lines:
        await far.push(PUSH_CONFIG.name, {"configData": {"id": ["secret"]}, "services": "secret"})
        far.know(document(version="2"))
        assert versions(await port.records()) == {"a": "2", "b": "2"}
    (line,) = (line for line in lines if line["event"] == "push rejected, asking instead")
    assert "$.configData.id" in line["reason"]
    assert "$.services" in line["reason"]
    assert "secret" not in line["reason"]


async def test_a_push_of_an_earlier_connection_is_forgotten(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """What was pushed before a new connection is older than what is asked for over it."""
    far = knowing()
    port = follow(far, nursery)
    await port.records()
    await far.push(PUSH_CONFIG.name, pushed(service("a", "2")))
    far.hang_up()
    await trio.sleep(5)
    assert versions(await port.records()) == {"a": "1", "b": "1"}


# --- collections


@pytest.mark.parametrize("answer", [MISSING, Refused("no")])
async def test_one_by_one(autojump_clock: MockClock, answer: Exception, nursery: trio.Nursery) -> None:
    """Without a method for all of a kind, or one for us, each is asked for, a few at once; for the whole connection."""
    names = [f"n{number:02}" for number in range(30)]
    far = knowing(dict.fromkeys(BATCH, answer), *names)
    get, now, most = far.answers["getImage"], 0, 0

    async def slowly(body: Mapping[str, Any]) -> Any:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await trio.sleep(1)
        now -= 1
        return get(body)

    far.answers["getImage"] = slowly
    port = follow(far, nursery)
    for connections in (1, 2):
        for _ in range(3):
            records = await port.records()
            assert list(records.images) == [f"img-{name}" for name in names]
            assert records.rejected == ()
        assert [far.count(name) for name in BATCH] == [connections] * len(BATCH)
        far.hang_up()
        await trio.sleep(5)
    assert most == CONCURRENCY


async def test_a_service_without_references(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """What is not referred to is not asked for."""
    far = CloudlyStandIn()
    far.know({"configData": CLUSTER, "services": [{"id": "s", "data": {"name": "a"}}]}, batch=False)
    records = await follow(far, nursery).records()
    assert (versions(records), records.rejected) == ({"a": None}, ())
    assert [far.count(collection.one.name) for collection in COLLECTIONS] == [0] * len(COLLECTIONS)


@pytest.mark.parametrize("answer", [None, CRASH, {}, {"images": {}}, []])
async def test_a_kind_that_cannot_be_used(
    autojump_clock: MockClock, answer: Any, nursery: trio.Nursery
) -> None:
    """The last good ones stay; without any, each is asked for. The records say so, until there is a good answer."""
    far = knowing({IMAGES: answer})
    port = follow(far, nursery)
    for fetched in (2, 4):
        records = await port.records()
        assert set(records.images) == {"img-a", "img-b"}
        assert [found[:2] for found in rejected(records)] == [("answer to", IMAGES)]
        assert far.count("getImage") == (fetched if fetched == 2 else 2)
    far.know(document())
    good = await port.records()
    assert good.rejected == ()
    assert len(good.images) == 3
    far.answers[IMAGES] = answer
    kept = await port.records()
    assert kept.images == good.images
    assert [found[:2] for found in rejected(kept)] == [("answer to", IMAGES)]
    assert far.count("getImage") == 2


ONE_OF_EACH = {
    "images": "img-b",
    "externalRegistries": "reg",
    "secretBundles": "bun-2",
    "secretGroups": "grp-2",
}


def except_for(identity: str, key: str | None, answer: object, get: Any, body: Mapping[str, Any]) -> Any:
    """One record is answered otherwise."""
    if body[key or ""] != identity:
        return get(body)
    if isinstance(answer, Exception):
        raise answer
    return answer


@pytest.mark.parametrize("collection", COLLECTIONS, ids=lambda collection: collection.member)
@pytest.mark.parametrize(
    ("answer", "is_kept"),
    [(Refused("gone"), False), (CRASH, True), (None, True), ({}, True)],
)
async def test_one_record_that_cannot_be_had(
    autojump_clock: MockClock, collection: Any, answer: object, is_kept: bool, nursery: trio.Nursery
) -> None:
    """It is listed with the reason, and the others are there; one that was there before stays, unless it is refused."""
    far = knowing(batch=False)
    port = follow(far, nursery)
    one, identity = collection.one, ONE_OF_EACH[collection.member]
    get = far.answers[one.name]
    broken = partial(except_for, identity, one.key, answer, get)

    def ids(records: Records) -> set[str]:
        parts: Mapping[str, Mapping[Any, object]] = {
            "images": records.images,
            "externalRegistries": records.external_registries,
            "secretBundles": records.secret_bundles,
            "secretGroups": records.secret_groups,
        }
        return set(parts[collection.member])

    far.answers[one.name] = broken
    first = await port.records()
    assert [found[:2] for found in rejected(first)] == [(collection.kind, identity)]
    assert identity not in ids(first)
    far.answers[one.name] = get
    good = await port.records()
    assert good.rejected == ()
    assert ids(good) - {identity} == ids(first)
    far.answers[one.name] = broken
    last = await port.records()
    assert [found[:2] for found in rejected(last)] == [(collection.kind, identity)]
    assert (identity in ids(last)) == is_kept
    assert last.services == good.services


async def test_bundles_by_tag_need_all_groups(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """A bundle that chooses groups by their tags is left out where groups come one by one."""
    known = document()
    known["secretBundles"] = [
        bundle("bun-1", includedTags=[{"key": "app"}]),
        bundle("bun-2", includedSecretGroupIds=["grp-2"]),
    ]
    far = CloudlyStandIn()
    far.know(known)
    port = follow(far, nursery)
    assert set((await port.records()).secret_bundles) == {"bun-1", "bun-2"}
    far.answers["getSecretGroups"] = MISSING
    records = await port.records()
    assert set(records.secret_bundles) == {"bun-2"}
    assert set(records.secret_groups) == {"grp-2"}
    ((kind, identity, reason),) = rejected(records)
    assert (kind, identity) == ("secret bundle", "bun-1")
    assert "by tag" in reason


# --- platform and gateway

BINDINGS = {"revision": 7}
GATE = {"type": "onebox", "url": "https://gate.example"}
OTHER_GATE = {"type": "onebox", "url": "https://other.example"}


def config_with(gateway: object) -> Json:
    """The cluster with a gateway beside it."""
    return {**document(), "externalGatewayConfig": gateway}


def revision(records: Records) -> int | None:
    """That of the platform's state, if there is one."""
    return None if records.platform is None else records.platform.revision


def gate(records: Records) -> str | None:
    """The gateway's address, if there is one."""
    return None if records.gateway is None else records.gateway.url


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (MISSING, None),
        ({"desiredState": BINDINGS}, 7),
        ({"desiredState": None}, None),
        ({}, None),
    ],
)
async def test_the_platform(
    autojump_clock: MockClock, answer: Any, expected: int | None, nursery: trio.Nursery
) -> None:
    """It is as its method says; without one there is none."""
    port = follow(knowing({PLATFORM: answer}), nursery)
    for _ in range(2):
        records = await port.records()
        assert (revision(records), records.rejected) == (expected, ())


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (MISSING, GATE["url"]),
        ({"externalGatewayConfig": OTHER_GATE}, OTHER_GATE["url"]),
        ({"externalGatewayConfig": None}, None),
    ],
)
async def test_the_gateway(
    autojump_clock: MockClock, answer: Any, expected: str | None, nursery: trio.Nursery
) -> None:
    """It is as its method says; without one, as it stands beside the cluster."""
    port = follow(knowing({CONFIG: config_with(GATE), GATEWAY: answer}), nursery)
    for _ in range(2):
        records = await port.records()
        assert (gate(records), records.rejected) == (expected, ())


@pytest.mark.parametrize("answer", [CRASH, None, [], Refused("no")])
async def test_a_proposed_method_that_fails(
    autojump_clock: MockClock, answer: Any, nursery: trio.Nursery
) -> None:
    """What it said last counts, and the records say so. Until bindings are known, nothing may be deployed."""
    far = knowing({PLATFORM: answer, GATEWAY: answer})
    port = follow(far, nursery)
    failed = {("answer to", PLATFORM), ("answer to", GATEWAY)}
    with pytest.raises(Unavailable, match="what services are bound to is not known"):
        await port.records()
    far.answers[PLATFORM] = {"desiredState": None}
    records = await port.records()
    assert (revision(records), gate(records)) == (None, None)
    assert {found[:2] for found in rejected(records)} == {("answer to", GATEWAY)}
    assert versions(records) == {"a": "1", "b": "1"}
    far.answers |= {PLATFORM: {"desiredState": BINDINGS}, GATEWAY: {"externalGatewayConfig": GATE}}
    records = await port.records()
    assert (revision(records), gate(records), records.rejected) == (7, GATE["url"], ())
    far.answers |= {PLATFORM: answer, GATEWAY: answer}
    for _ in range(2):
        records = await port.records()
        assert (revision(records), gate(records)) == (7, GATE["url"])
        assert {found[:2] for found in rejected(records)} == failed


@pytest.mark.parametrize("answer", [{}, {"desiredState": None}])
async def test_a_platform_that_was_there_does_not_vanish_without_a_word(
    autojump_clock: MockClock, answer: Any, nursery: trio.Nursery
) -> None:
    """An answer without it is no news that there are no bindings; an empty list of them is."""
    far = knowing({PLATFORM: {"desiredState": BINDINGS}})
    port = follow(far, nursery)
    assert revision(await port.records()) == 7
    far.answers[PLATFORM] = answer
    kept = await port.records()
    assert revision(kept) == 7
    ((kind, name, reason),) = rejected(kept)
    assert (kind, name) == ("answer to", PLATFORM)
    assert "is missing or null" in reason
    assert "$.desiredState" in reason
    far.answers[PLATFORM] = {"desiredState": {**BINDINGS, "bindings": []}}
    emptied = (await port.records()).platform
    assert emptied is not None
    assert emptied.bindings == ()


async def test_a_pushed_platform(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """Where there is no method for it, or it fails, what was pushed counts from then on; else what is asked for."""
    far = knowing()
    port = follow(far, nursery)
    assert revision(await port.records()) is None
    await far.push(PUSH_PLATFORM.name, {"desiredState": BINDINGS})
    for _ in range(2):
        assert revision(await port.records()) == 7
        far.hang_up()
        await trio.sleep(5)
    far.answers[PLATFORM] = {"desiredState": {"revision": 8}}
    far.hang_up()
    await trio.sleep(5)
    await far.push(PUSH_PLATFORM.name, {"desiredState": BINDINGS})
    assert revision(await port.records()) == 8
    far.answers[PLATFORM] = Refused("no")
    await far.push(PUSH_PLATFORM.name, {"desiredState": {"revision": 9}})
    assert revision(await port.records()) == 9


# --- away


async def test_a_connection_that_ends_in_the_middle(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """Without records that is raised; else the last ones stay."""
    far = knowing()
    far.answers[CONFIG] = lambda _: far.hang_up()
    port = follow(far, nursery)
    with pytest.raises(Unavailable):
        await port.records()
    far.know(document())
    await trio.sleep(5)
    good = await port.records()
    far.answers[SERVICES] = lambda _: far.hang_up()
    assert await port.records() is good


@pytest.mark.parametrize("is_known", [True, False])
async def test_whenever_a_connection_ends_records_are_whole(
    autojump_clock: MockClock, is_known: bool, nursery: trio.Nursery
) -> None:
    """At whatever moment of a fetch one by one: none of a record that was not asked for is left out."""
    moments = 0
    for steps in range(50):
        far = knowing(batch=False)
        port = follow(far, nursery)
        good = await port.records() if is_known else None
        await port.link.wait()
        far.away = Refused("not trusted")

        async def end_after(far: CloudlyStandIn, steps: int) -> None:
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            far.hang_up()

        nursery.start_soon(end_after, far, steps)
        try:
            records = await port.records()
        except (Unavailable, Refused):
            assert good is None
            moments += 1
        else:
            assert records.rejected == ()
            assert len(records.secret_groups) == 2
            assert good is None or records is good
    assert moments > 10 or is_known


async def test_nobody_waits_while_cloudly_is_away(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """The last records are there at once, whatever the reason."""
    far = knowing()
    port = follow(far, nursery)
    good = await port.records()
    for away in (Unavailable("down"), Refused("not trusted")):
        far.away = away
        far.hang_up()
        await settle()
        started = trio.current_time()
        assert await port.records() is good
        assert trio.current_time() == started
        far.away = None
        await trio.sleep(120)
    far.answers[LOGIN.name] = Refused("no such token")
    far.hang_up()
    await trio.sleep(60)
    assert port.link.live is None
    assert await port.records() is good


async def test_a_cloudly_that_does_not_answer(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """After two fetches in a row without an answer the connection is made anew."""
    far = knowing()
    port = follow(far, nursery)
    good, fine = await port.records(), far.answers[SERVICES]
    for answer in (never, fine, CRASH, CRASH, never, fine):
        far.answers[SERVICES] = answer
        assert versions(await port.records()) == versions(good)
        await trio.sleep(5)
    far.answers[SERVICES] = never
    with capture_logs() as lines:
        for _ in range(2):
            assert len(far.dials) == 1
            assert versions(await port.records()) == versions(good)
            await trio.sleep(5)
    assert len(far.dials) == 2
    assert "Cloudly does not answer requests" in [line.get("reason") for line in lines]
    far.answers[CONFIG] = pushed(service("a", "2"))
    assert versions(await port.records()) == {"a": "2"}


@pytest.mark.parametrize("name", [IMAGES, PLATFORM])
async def test_a_method_that_stays_silent(
    autojump_clock: MockClock, name: str, nursery: trio.Nursery
) -> None:
    """It is waited for once on a connection; its last answer counts, and the rest goes on."""
    far = knowing({PLATFORM: {"desiredState": BINDINGS}})
    port = follow(far, nursery)
    await port.records()
    far.answers[name] = never
    began = trio.current_time()
    for version in "234":
        far.answers[SERVICES] = pushed(service("a", version))
        records = await port.records()
        assert versions(records) == {"a": version}
        assert revision(records) == 7
    assert trio.current_time() - began < 40
    assert len(far.dials) == 1


async def test_any_answer_may_stay_away(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """Silence about a single record is not an answer to go on with."""
    name = "getImage"
    far = knowing(batch=False)
    port = follow(far, nursery)
    good = await port.records()
    far.answers[name] = never
    for _ in range(2):
        assert await port.records() is good
    await trio.sleep(5)
    assert len(far.dials) == 2


@pytest.mark.parametrize("missing", [(), BATCH])
async def test_a_token_that_is_refused_meanwhile(
    autojump_clock: MockClock, missing: tuple[str, ...], nursery: trio.Nursery
) -> None:
    """No record is lost by it: the last ones stay until the token is accepted, and are asked for as before then."""
    far = knowing(dict.fromkeys(missing, MISSING))
    port: NetworkCloudly = follow(far, nursery)
    good = await port.records()
    answers = dict(far.answers)
    singles = [collection.one.name for collection in COLLECTIONS]
    far.answers[LOGIN.name] = Refused("no such token")
    for names in ([*BATCH, *singles], [PLATFORM], [SERVICES]):
        far.answers |= {name: REJECTED for name in names if far.answers.get(name) is not MISSING}
        kept = await port.records()
        assert (kept.services, kept.images) == (good.services, good.images)
        assert all("JUMPCODE" in reason for _, _, reason in rejected(kept))
        assert len(kept.rejected) == 1
    far.answers |= answers | {PLATFORM: MISSING}
    await trio.sleep(300)
    assert await port.records() == good


async def test_a_record_that_nests_too_deep_costs_nobody_else(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """It can be read and not written: what changed elsewhere is seen, and nothing fails."""
    deep: Any = []
    for _ in range(300):
        deep = [deep]
    far = knowing()
    port = follow(far, nursery)
    live = await port.link.wait()
    for version in "12":
        parts = {**pushed(service("a", version), {**service("b"), "unknown": deep})}
        records = await port._fetcher._decode(live, _Findings(parts=parts))
        assert versions(records)["a"] == version


async def test_too_much_nonsense_is_nonsense_as_a_whole(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """Thousands of records that cannot be read do not take minutes to be listed: the last good ones stay."""
    far = knowing()
    port = follow(far, nursery)
    good = await port.records()
    far.answers[SERVICES] = {"services": [{}] * 5000}
    records = await port.records()
    assert versions(records) == versions(good)
    assert "more than 1000 records cannot be read" in str(records.rejected)


# --- a large document


class AsksTheLoop(RecordDecoder):
    """Decodes only once the loop has gone on: in the loop itself this cannot be waited for."""

    def __init__(self, go_on: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self.go_on, self.calls = go_on, 0

    def decode(self, document: object, *, consume: bool = False) -> Records:
        """See `RecordDecoder`."""
        self.calls += 1
        trio.from_thread.run(self.go_on)
        return super().decode(document, consume=consume)


@pytest.mark.parametrize("pushed", [True, False])
async def test_a_large_document_does_not_hold_up_the_loop(
    mock_clock: MockClock, pushed: bool, nursery: trio.Nursery
) -> None:
    """Neither what was asked for nor what was pushed: other tasks go on while 1,000 services are decoded."""
    far = knowing(None, *(f"s{number}" for number in range(1000)))
    port = follow(far, nursery)
    live = await port.link.wait()
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await trio.lowlevel.checkpoint()
            ticks += 1

    async def three_more() -> None:
        before = ticks
        while ticks < before + 3:
            await trio.lowlevel.checkpoint()

    fetcher = port._fetcher
    fetcher._decoder, fetcher._discovery = AsksTheLoop(three_more), AsksTheLoop(three_more)
    nursery.start_soon(tick)
    if pushed:
        fetcher.push({"configData": CLUSTER, "services": far.answers[SERVICES]["services"]})
    records = await fetcher.fetch(live)
    nursery.cancel_scope.cancel()
    assert len(records.services) == 1000
    assert (fetcher._decoder.calls, fetcher._discovery.calls) == (1, int(pushed))
