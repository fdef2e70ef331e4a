"""Copies of archive objects at a Cloudly that answers in odd ways."""

import base64
from typing import Any

import pytest
import trio
from tests.unit.adapters.cloudly.stand_in import CRASH, REJECTED, CloudlyStandIn, Json, follow, never
from trio.testing import MockClock

from coreflow.adapters.cloudly import NetworkCloudly
from coreflow.adapters.cloudly.archive import SLICE_SECONDS
from coreflow.adapters.cloudly.methods import GET_ARCHIVE, LIST_ARCHIVE, LOGIN, PUT_ARCHIVE
from coreflow.domain.backup.replication import Copy, Receipt, Slice
from coreflow.domain.errors import PortError, Refused, Unavailable

LIST, PUT, GET = LIST_ARCHIVE.name, PUT_ARCHIVE.name, GET_ARCHIVE.name
DIGEST = "ab" * 32
COPY = Copy(name="packs/a", size=10, sha256=DIGEST)


def entry(**change: object) -> Json:
    """A copy as Cloudly lists it; None takes a member away."""
    members = {"objectId": "packs/a", "sizeBytes": 10, "sha256": DIGEST, **change}
    return {name: value for name, value in members.items() if value is not None}


def said(far: CloudlyStandIn, method: str) -> list[Json]:
    """What was asked of a method, without the identity."""
    bodies = [body for _, name, body in far.calls if name == method]
    return [{name: value for name, value in body.items() if name != "identity"} for body in bodies]


def coded(data: bytes) -> str:
    """Bytes as they travel."""
    return base64.b64encode(data).decode()


async def connected(nursery: trio.Nursery, answers: Json) -> tuple[CloudlyStandIn, NetworkCloudly]:
    """Our adapter on a Cloudly that answers like this."""
    far = CloudlyStandIn(answers)
    port = follow(far, nursery)
    await port.link.wait()
    return far, port


# --- lists


@pytest.mark.parametrize(
    "one",
    [
        entry(),
        entry(objectId=None, id="packs/a"),
        entry(objectId=None, path="packs/a", other=1),
        entry(objectId=None, name="packs/a"),
        entry(sizeBytes=None, size=10),
        entry(sizeBytes=10.0),
        entry(sha256=None, hash=DIGEST),
        entry(sha256=DIGEST.upper()),
        entry(sha256=f"sha256:{DIGEST}"),
    ],
)
async def test_spellings_of_a_copy(autojump_clock: MockClock, nursery: trio.Nursery, one: Json) -> None:
    """Each of them is the same copy."""
    _, port = await connected(nursery, {LIST: {"objects": [one]}})
    assert await port.copies() == (COPY,)


@pytest.mark.parametrize(
    "one",
    [
        None,
        "packs/a",
        [],
        {},
        entry(objectId=None),
        entry(objectId=""),
        entry(objectId=1),
        entry(sizeBytes=None),
        entry(sizeBytes=-1),
        entry(sizeBytes=True),
        entry(sizeBytes="10"),
        entry(sizeBytes=1.5),
        entry(sha256=None),
        entry(sha256="ab"),
        entry(sha256="g" * 64),
        entry(sha256=1),
    ],
)
async def test_a_copy_that_is_not_described_in_full(
    autojump_clock: MockClock, nursery: trio.Nursery, one: object
) -> None:
    """It counts as not there, and the others as they are."""
    other = Copy(name="packs/b", size=0, sha256=DIGEST)
    answer = {"objects": [one, entry(objectId="packs/b", sizeBytes=0)]}
    _, port = await connected(nursery, {LIST: answer})
    assert await port.copies() == (other,)


async def test_a_copy_with_its_digest_in_its_name_only(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """What arrives is compared with it; one that is told and cannot be read is no digest all the same."""
    name = f"packs/a@{DIGEST}"
    _, port = await connected(nursery, {LIST: {"objects": [entry(objectId=name, sha256=None)]}})
    assert await port.copies() == (Copy(name=name, size=10, sha256=DIGEST),)
    _, port = await connected(nursery, {LIST: {"objects": [entry(objectId=name, sha256="ab")]}})
    assert await port.copies() == ()


async def test_what_is_listed_twice(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """The first one counts."""
    _, port = await connected(nursery, {LIST: {"objects": [entry(), entry(), entry(sizeBytes=11)]}})
    assert await port.copies() == (COPY,)


async def test_pages_are_followed(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """As long as there is another one; what is looked for stays the same, and is looked for here as well."""
    pages = {None: ("a/1", 7), 7: ("b/1", "x"), "x": ("a/2", "")}

    def page(body: Json) -> Json:
        name, following = pages[body.get("cursor")]
        return {"objects": [entry(objectId=name)], "nextCursor": following}

    far, port = await connected(nursery, {LIST: page})
    assert [copy.name for copy in await port.copies(backup_id="b", prefix="a/")] == ["a/1", "a/2"]
    query = {"backupId": "b", "prefix": "a/"}
    assert said(far, LIST) == [query, {**query, "cursor": 7}, {**query, "cursor": "x"}]
    assert [copy.name for copy in await port.copies()] == ["a/1", "b/1", "a/2"]
    assert said(far, LIST)[3] == {}


@pytest.mark.parametrize(
    ("cursors", "text"),
    [
        ({None: "a", "a": "b", "b": "a"}, "again and again"),
        ({None: "a", "a": "a"}, "again and again"),
        ({None: ["a"]}, "nextCursor"),
        ({None: True}, "nextCursor"),
        ({None: "a" * 100_000}, "nextCursor"),
    ],
)
async def test_pages_without_an_end(
    autojump_clock: MockClock, nursery: trio.Nursery, cursors: dict[Any, Any], text: str
) -> None:
    """Nobody follows them round and round."""
    answer = lambda body: {"objects": [], "nextCursor": cursors[body.get("cursor")]}  # noqa: E731
    _, port = await connected(nursery, {LIST: answer})
    with pytest.raises(Refused, match=text):
        await port.copies()


@pytest.mark.parametrize("answer", [{}, {"objects": None}, {"objects": {}}, {"objects": "x"}, []])
async def test_no_list_at_all(autojump_clock: MockClock, nursery: trio.Nursery, answer: object) -> None:
    """That is not an empty one."""
    _, port = await connected(nursery, {LIST: answer})
    with pytest.raises(Refused, match=LIST):
        await port.copies()


# --- there


async def test_a_slice_as_it_travels(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """With everything that is known of the copy, and what it is for."""
    far, port = await connected(nursery, {PUT: {"receivedBytes": 5, "stored": False}})
    receipt = await port.put_slice(COPY, 2, b"\x00\xff\xfe", final=False, backup_id="backup")
    assert receipt == Receipt(5, stored=False)
    await port.put_slice(COPY, 10, b"", final=True)
    first, second = said(far, PUT)
    assert first == {
        "objectId": "packs/a",
        "sha256": DIGEST,
        "sizeBytes": 10,
        "offset": 2,
        "final": False,
        "dataBase64": "AP/+",
        "backupId": "backup",
    }
    assert (second["dataBase64"], second["final"], "backupId" in second) == ("", True, False)


@pytest.mark.parametrize(
    ("final", "answer", "expected"),
    [
        pytest.param(False, {}, Receipt(5, stored=False), id="says nothing"),
        pytest.param(False, {"receivedBytes": 0}, Receipt(0, stored=False), id="wants all again"),
        pytest.param(False, {"receivedBytes": 8.0}, Receipt(8, stored=False), id="has more"),
        pytest.param(
            False, {"receivedBytes": 5, "stored": True}, Receipt(5, stored=False), id="means the slice"
        ),
        pytest.param(False, {"receivedBytes": 10}, Receipt(10, stored=False), id="has all"),
        pytest.param(
            False, {"receivedBytes": 10, "stored": True}, Receipt(10, stored=True), id="had all before"
        ),
        pytest.param(True, {}, Receipt(10, stored=False), id="says nothing at the end"),
        pytest.param(True, {"stored": True}, Receipt(10, stored=True), id="stored"),
        pytest.param(True, {"receivedBytes": 10}, Receipt(10, stored=True), id="received everything"),
        pytest.param(
            True, {"receivedBytes": 10, "stored": False}, Receipt(10, stored=False), id="not as it was sent"
        ),
        pytest.param(True, {"receivedBytes": 10, "stored": "yes"}, Receipt(10, stored=False), id="no answer"),
        pytest.param(
            True, {"receivedBytes": 5, "stored": True}, Receipt(5, stored=False), id="contradicts itself"
        ),
    ],
)
async def test_what_became_of_a_slice(
    autojump_clock: MockClock, nursery: trio.Nursery, final: bool, answer: Json, expected: Receipt
) -> None:
    """Stored is only what was received in whole; who says nothing stored nothing, unless it received all at the end."""
    _, port = await connected(nursery, {PUT: answer})
    offset = 5 if final else 0
    assert await port.put_slice(COPY, offset, b"12345", final=final) == expected


@pytest.mark.parametrize("received", [-1, 11, 1.5, "5", True, [], float(2**70)])
async def test_what_cannot_have_been_received(
    autojump_clock: MockClock, nursery: trio.Nursery, received: object
) -> None:
    """It is as if there had been no answer."""
    _, port = await connected(nursery, {PUT: {"receivedBytes": received, "stored": True}})
    with pytest.raises(Unavailable, match="what cannot be"):
        await port.put_slice(COPY, 5, b"12345", final=True)


# --- and back


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"sizeBytes": 10, "final": False}, Slice(b"12345", 10, final=False)),
        ({"sizeBytes": 10}, Slice(b"12345", 10, final=False)),
        ({"size": 7, "final": True}, Slice(b"12345", 7, final=True)),
        ({"sizeBytes": 7.0}, Slice(b"12345", 7, final=True)),
        ({"sizeBytes": 7, "final": False}, Slice(b"12345", 7, final=True)),
        ({"final": True}, Slice(b"12345", 7, final=True)),
    ],
)
async def test_a_piece(
    autojump_clock: MockClock, nursery: trio.Nursery, answer: Json, expected: Slice
) -> None:
    """The last one is that which reaches the end."""
    far, port = await connected(nursery, {GET: {"dataBase64": coded(b"12345"), **answer}})
    assert await port.get_slice("packs/a", 2, 5) == expected
    assert said(far, GET) == [{"objectId": "packs/a", "offset": 2, "maxBytes": 5}]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"dataBase64": None}, "without data"),
        ({"dataBase64": {"type": "Buffer", "data": []}}, "without data"),
        ({"dataBase64": "MTIz*DU="}, "not base64"),
        ({"dataBase64": "MTIz\nDU="}, "not base64"),
        ({"dataBase64": "MTIzNDU"}, "not base64"),
        ({"dataBase64": "MTIz=NDU"}, "not base64"),
        ({"dataBase64": "MTIzNDé"}, "not base64"),
        ({"dataBase64": coded(b"123456")}, "more than it was asked for"),
        ({"dataBase64": coded(b"1" * 5000)}, "more than it was asked for"),
        ({"sizeBytes": 6}, "more than there is"),
        ({"sizeBytes": 1}, "more than there is"),
        ({"sizeBytes": None}, "without a size"),
        ({"sizeBytes": -1}, "without a size"),
        ({"sizeBytes": "10"}, "without a size"),
        ({"final": True}, "too early"),
        ({"dataBase64": ""}, "too early"),
    ],
)
async def test_what_cannot_be_a_piece(
    autojump_clock: MockClock, nursery: trio.Nursery, answer: Json, text: str
) -> None:
    """It is refused, and the data are not told."""
    _, port = await connected(nursery, {GET: {"dataBase64": "MTIzNDU=", "sizeBytes": 10, **answer}})
    with pytest.raises(Refused, match=text) as caught:
        await port.get_slice("packs/a", 2, 5)
    assert "MTIz" not in str(caught.value)


# --- a Cloudly that cannot, will not, or is not there


async def everything(port: NetworkCloudly) -> list[PortError]:
    """What each of the three raises."""
    errors: list[PortError] = []
    for ask in (
        lambda: port.copies(),
        lambda: port.put_slice(COPY, 0, b"", final=False),
        lambda: port.get_slice("a", 0, 1),
    ):
        with pytest.raises(PortError) as caught:
            await ask()
        errors.append(caught.value)
    return errors


async def test_without_the_methods(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """It is said which one is missing; it is not asked for again until there is a new connection."""
    far, port = await connected(nursery, {})
    for _ in range(2):
        errors = await everything(port)
        texts = [f"Cloudly keeps no archives (it has no {name})" for name in (LIST, PUT, GET)]
        assert [(type(error), str(error)) for error in errors] == [(Refused, text) for text in texts]
    assert far.count(LIST) == 1
    far.answers[LIST] = {"objects": []}
    far.hang_up()
    await trio.sleep(5)
    assert await port.copies() == ()


async def test_no_answer_in_time(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """Slices get more time than other requests; one without an answer may be sent again on the same connection."""
    far, port = await connected(nursery, dict.fromkeys((LIST, PUT, GET), never))
    start = trio.current_time()
    assert [type(error).__mro__[1] for error in await everything(port)] == [Unavailable] * 3
    assert trio.current_time() - start == pytest.approx(3 * SLICE_SECONDS)
    far.answers[LIST] = {"objects": []}
    assert await port.copies() == ()
    assert len(far.dials) == 1


async def test_while_cloudly_is_away(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """Nobody waits for it here, nor is it asked twice."""
    far, port = await connected(nursery, {PUT: never})

    async def break_off() -> None:
        await trio.sleep(1)
        far.away = Unavailable("down")
        far.hang_up()

    nursery.start_soon(break_off)
    with pytest.raises(Unavailable):
        await port.put_slice(COPY, 0, b"", final=False)
    await trio.sleep(10)
    start = trio.current_time()
    assert all(isinstance(error, Unavailable) for error in await everything(port))
    assert trio.current_time() == start
    assert far.count(PUT) == 1


@pytest.mark.parametrize("away", [Refused("no WebSocket here"), None])
async def test_a_connection_that_is_refused(
    autojump_clock: MockClock, nursery: trio.Nursery, away: Refused | None
) -> None:
    """By a proxy, or because the token is not taken: the copies are not refused by that, they may be had later."""
    far, port = await connected(nursery, {LIST: {"objects": []}})
    if away is None:
        far.answers[LOGIN.name] = Refused("no such token")
    far.away = away
    far.hang_up()
    await trio.sleep(10)
    assert all(isinstance(error, Unavailable) for error in await everything(port))


async def test_a_login_that_ran_out(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """It is renewed on the way; where that is refused, the copies are not."""
    far, port = await connected(nursery, {})
    far.answers[LIST] = lambda body: {"objects": []} if body["identity"]["jwt"] == "jwt-2-secret" else _fail()
    assert await port.copies() == ()
    far.answers[LIST] = REJECTED
    far.answers[LOGIN.name] = Refused("no such token")
    with pytest.raises(Unavailable):
        await port.copies()


def _fail() -> Json:
    raise REJECTED


@pytest.mark.parametrize(
    ("answer", "kind"), [(Refused("quota"), Refused), (CRASH, Unavailable), (None, Unavailable)]
)
async def test_a_no(
    autojump_clock: MockClock, nursery: trio.Nursery, answer: object, kind: type[PortError]
) -> None:
    """A reason is passed on as a refusal; a failure may pass."""
    _, port = await connected(nursery, dict.fromkeys((LIST, PUT, GET), answer))
    assert all(isinstance(error, kind) for error in await everything(port))
