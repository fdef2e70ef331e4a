"""The connection to Cloudly: dialled, logged in, tagged and kept up, at a pace that hurts nobody."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from tests.unit.adapters.cloudly.stand_in import (
    CRASH,
    MISSING,
    REJECTED,
    TOKEN,
    CloudlyStandIn,
    Json,
    never,
    settle,
)
from trio.testing import MockClock

from coreflow.adapters.cloudly.link import Link, NotOffered, TokenRefused
from coreflow.adapters.cloudly.methods import COLLECTIONS, GATEWAY, LOG, LOGIN, PLATFORM, SERVICES, STATUS
from coreflow.adapters.net.errors import NobodyBehind
from coreflow.adapters.net.typedsocket import SET_TAG, NoResult
from coreflow.domain.errors import CoreflowError, InvalidRecord, Refused, Unavailable, Unreached

UP, LOST, WAITING = "connected to Cloudly", "connection to Cloudly lost", "waiting for Cloudly"
REFUSES = "Cloudly refuses the token"


def link_to(far: CloudlyStandIn, nursery: trio.Nursery, ups: list[Any] | None = None) -> Link:
    """A link at work. It notes what the peer had seen when it came up."""

    def on_up() -> None:
        if ups is not None:
            ups.append((trio.current_time(), far.logins, far.identities))

    link = Link(far.dial, TOKEN, handlers={}, wall_clock=far.wall_clock, on_up=on_up)
    nursery.start_soon(link.run)
    return link


def events(lines: list[Any], *names: str) -> list[str]:
    """The reasons in the lines of these names."""
    return [line.get("reason", "") for line in lines if line["event"] in names]


def gaps(times: list[float]) -> list[float]:
    """From each to the next."""
    return [later - earlier for earlier, later in pairwise(times)]


def is_spread(found: list[float], expected: list[float]) -> bool:
    """Each as expected, or up to a quarter shorter."""
    pairs = zip(found, expected, strict=False)
    return all(0.75 * wanted - 1e-6 <= gap <= wanted + 1e-6 for gap, wanted in pairs)


def is_clean(text: str, *secrets: str) -> bool:
    """None of these is in a text, nor much of its beginning."""
    return not any(secret[:8] in text for secret in (TOKEN, *secrets))


# --- logins


async def test_a_login_comes_before_the_tag_and_all_else(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """Token, identity, tag; only then is the connection there, and told of."""
    far, ups = CloudlyStandIn(), list[Any]()
    link = link_to(far, nursery, ups)
    live = await link.wait()
    assert link.live is live
    assert ups == [(0, 1, ["jwt-1-secret"])]
    assert far.tags[0][1] == "identity"
    assert far.calls[0][1:] == (LOGIN.name, {"token": TOKEN})
    await settle()
    assert [(name, body["identity"]["jwt"]) for _, name, body in far.calls[1:]] == [
        (STATUS.name, "jwt-1-secret")
    ]


async def test_a_sign_of_life_every_minute(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """As long as Cloudly has the method for it."""
    far = CloudlyStandIn()
    await link_to(far, nursery).wait()
    await trio.sleep(301)
    assert far.count(STATUS.name) == 6
    far.answers[STATUS.name] = MISSING
    await trio.sleep(301)
    assert far.count(STATUS.name) == 7


async def test_an_identity_is_renewed_in_time(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """Before it expires there is another one, by which the connection is tagged anew."""
    far, ups = CloudlyStandIn(lifetime=3600), list[Any]()
    live = await link_to(far, nursery, ups).wait()
    await trio.sleep(2879)
    assert far.identities == ["jwt-1-secret"]
    await trio.sleep(2)
    assert far.identities == ["jwt-1-secret", "jwt-2-secret"]
    assert live.identity.jwt == "jwt-2-secret"
    await trio.sleep(2880)
    assert far.logins == 3
    assert (len(far.dials), len(ups)) == (1, 1)


@pytest.mark.parametrize(
    ("answer", "event"),
    [(CRASH, "the login was not renewed"), (Refused(f"no {TOKEN}"), REFUSES)],
)
async def test_a_renewal_that_fails(
    autojump_clock: MockClock, answer: Exception, event: str, nursery: trio.Nursery
) -> None:
    """It is tried again, ever more slowly, and said once; the connection stays."""
    far = CloudlyStandIn(lifetime=3600)
    link = link_to(far, nursery)
    await link.wait()
    far.answers[LOGIN.name] = answer
    with capture_logs() as lines:
        await trio.sleep(2880 + 600)
        assert 5 <= far.count(LOGIN.name) - 1 <= 20
        far.answers[LOGIN.name] = far.login
        await trio.sleep(300)
    assert far.logins == 2
    assert len(events(lines, event)) == 1
    assert is_clean(repr(lines))
    assert len(far.dials) == 1


def except_for(*bad: str, rejection: Exception | None) -> Any:
    """Answers nobody who comes with one of these identities."""

    def answer(body: Mapping[str, Any]) -> Json | None:
        if body["identity"]["jwt"] not in bad:
            return {"services": []}
        if rejection is not None:
            raise rejection
        return None

    return answer


@pytest.mark.parametrize(
    ("rejection", "skew"),
    [
        pytest.param(REJECTED, 0, id="said"),
        pytest.param(None, 7200, id="null after it expired, as of 3.3.0"),
        pytest.param(CRASH, 7200, id="an error after it expired"),
        pytest.param(Refused("whatever"), 7200, id="anything after it expired"),
    ],
)
async def test_a_rejected_identity_is_replaced_once(
    autojump_clock: MockClock, rejection: Exception | None, skew: float, nursery: trio.Nursery
) -> None:
    """However many requests meet it, there is one new login, and each is repeated once."""
    far = CloudlyStandIn()
    link = link_to(far, nursery)
    await link.wait()
    far.skew = skew
    far.answers[SERVICES.name] = except_for("jwt-1-secret", rejection=rejection)
    async with trio.open_nursery() as calls:
        for _ in range(5):
            calls.start_soon(link.call, SERVICES)
    assert far.identities == ["jwt-1-secret", "jwt-2-secret"]
    assert far.count(SERVICES.name) == 10
    assert await link.call(SERVICES) == {"services": []}
    assert far.logins == 2


@pytest.mark.parametrize("answer", [REJECTED, CRASH, None, Refused("no such cluster")])
@pytest.mark.parametrize("ahead", [86400.0, 3590.0, -86400.0])
async def test_a_clock_that_is_wrong_makes_no_logins(
    autojump_clock: MockClock, answer: Any, ahead: float, nursery: trio.Nursery
) -> None:
    """Refused calls, many of them, cost a login now and then, whatever our clock says about the identity."""
    far = CloudlyStandIn()
    true_clock = far.wall_clock
    link = Link(
        far.dial,
        TOKEN,
        handlers={},
        wall_clock=lambda: true_clock() + ahead,
        on_up=lambda: None,
    )
    nursery.start_soon(link.run)
    await link.wait()
    methods = [collection.all for collection in COLLECTIONS] + [SERVICES, PLATFORM, GATEWAY]
    far.answers |= {method.name: answer for method in methods}
    for _ in range(22):
        for method in methods:
            with pytest.raises(CoreflowError):
                await link.call(method)
        await trio.sleep(1)
    assert far.logins <= 7


@pytest.mark.parametrize(
    ("answer", "wait", "error", "logins"),
    [
        pytest.param(REJECTED, 0, Refused, 2, id="rejected again"),
        pytest.param(Refused("no such cluster"), 100, Refused, 1, id="another refusal"),
        pytest.param(None, 10, NoResult, 1, id="null soon after a login"),
        pytest.param(None, 100, NoResult, 2, id="null long after a login"),
        pytest.param(CRASH, 100, Unavailable, 2, id="a crash long after a login"),
        pytest.param(MISSING, 100, NotOffered, 1, id="no such method"),
        pytest.param([], 100, InvalidRecord, 1, id="no object"),
    ],
)
async def test_what_a_login_does_not_help(
    autojump_clock: MockClock,
    answer: Any,
    wait: float,
    error: type[CoreflowError],
    logins: int,
    nursery: trio.Nursery,
) -> None:
    """An answer that stays what it is after a new login is an error; vague ones do not make a login each time."""
    far = CloudlyStandIn()
    link = link_to(far, nursery)
    await link.wait()
    await trio.sleep(wait)
    far.answers[SERVICES.name] = answer
    with pytest.raises(error):
        await link.call(SERVICES)
    assert far.logins == logins
    if answer is not REJECTED:
        with pytest.raises(error):
            await link.call(SERVICES)
        assert far.logins == logins


async def test_a_missing_method_is_asked_for_once_per_connection(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """What is not there is remembered, until there is another connection."""
    far = CloudlyStandIn()
    link = link_to(far, nursery)
    for dials in (1, 2):
        await link.wait()
        for _ in range(3):
            with pytest.raises(NotOffered):
                await link.call(SERVICES)
        assert far.count(SERVICES.name) == dials
        far.hang_up()
        await trio.sleep(5)


# --- what goes wrong


async def test_a_refused_token(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """Who waits learns it, without the token; it is said once and tried again slowly, until it is accepted."""
    far = CloudlyStandIn({LOGIN.name: Refused(f"the token {TOKEN} is not known")})
    with capture_logs() as lines:
        link = link_to(far, nursery)
        with pytest.raises(TokenRefused, match=r"JUMPCODE.*the token … is not known"):
            await link.wait()
        await trio.sleep(600)
        assert 6 <= far.count(LOGIN.name) <= 7
        assert is_spread(gaps(far.dials), [15, 30, 60, 120, 240, 300])
        far.answers[LOGIN.name] = far.login
        await trio.sleep(300)
        assert await link.wait() is link.live
    assert len(events(lines, REFUSES)) == len(events(lines, UP)) == 1
    assert events(lines, LOST, WAITING) == []
    assert is_clean(repr(lines))


async def test_a_token_that_is_refused_later_is_tried_slowly(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """While the connection is up, requests that would need a new login do not each make one."""
    far = CloudlyStandIn()
    link = link_to(far, nursery)
    await link.wait()
    far.answers |= {LOGIN.name: Refused("no such token"), SERVICES.name: REJECTED}
    for _ in range(600):
        with pytest.raises(TokenRefused):
            await link.call(SERVICES)
        await trio.sleep(1)
    assert 5 <= far.count(LOGIN.name) - 1 <= 7
    far.answers |= {LOGIN.name: far.login, SERVICES.name: {"services": []}}
    await trio.sleep(300)
    assert await link.call(SERVICES) == {"services": []}


@pytest.mark.parametrize(
    ("far", "error", "text"),
    [
        pytest.param(CloudlyStandIn(away=Unavailable("down")), Unavailable, "down", id="away"),
        pytest.param(CloudlyStandIn(away=Refused("not trusted")), Refused, "not trusted", id="refused"),
        pytest.param(
            CloudlyStandIn({LOGIN.name: MISSING}),
            Refused,
            "CLOUDLY_URL leads to a server that is not Cloudly: it has no login",
            id="no Cloudly",
        ),
        pytest.param(
            CloudlyStandIn({LOGIN.name: CRASH}), Unavailable, "getIdentityByToken: Cloudly failed", id="crash"
        ),
        pytest.param(
            CloudlyStandIn({LOGIN.name: never}),
            Unavailable,
            "getIdentityByToken was not answered in 30 s",
            id="silence",
        ),
        pytest.param(
            CloudlyStandIn({LOGIN.name: None}),
            Unavailable,
            "getIdentityByToken was answered without a result",
            id="null",
        ),
        pytest.param(
            CloudlyStandIn({LOGIN.name: {"identity": {"jwt": ["secret"]}}}),
            Unavailable,
            "is missing or not a string @ $.identity.jwt",
            id="no identity",
        ),
    ],
)
async def test_a_login_that_fails(
    autojump_clock: MockClock, far: CloudlyStandIn, error: type[Exception], text: str, nursery: trio.Nursery
) -> None:
    """Who waits learns why; it is said once, whatever the number of attempts."""
    with capture_logs() as lines:
        link = link_to(far, nursery)
        for _ in range(2):
            with pytest.raises(error) as caught:
                await link.wait()
            assert str(caught.value) == text
            assert not isinstance(caught.value, TokenRefused)
            await trio.sleep(600)
    assert len(far.dials) > 10
    assert events(lines, WAITING, REFUSES, LOST) == [text]


async def test_a_connection_that_ends_during_the_login(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """The reason is that of the connection's end."""
    far = CloudlyStandIn()
    far.answers[LOGIN.name] = lambda _: far.hang_up()
    link = link_to(far, nursery)
    with pytest.raises(Unavailable, match=r"^the socket is closed$"):
        await link.wait()
    far.answers[LOGIN.name] = far.login
    await trio.sleep(2)
    await link.wait()


async def test_every_reason_is_said_once(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """A log has a line for each change, and none for an attempt that fails like the one before."""
    far = CloudlyStandIn(away=Unavailable("down"))
    with capture_logs() as lines:
        link_to(far, nursery)
        await trio.sleep(100)
        far.away = Unavailable("still down, differently")
        await trio.sleep(300)
        far.away = None
        await trio.sleep(100)
        far.away = Unavailable("down")
        far.hang_up()
        await trio.sleep(100)
    said = [(line["event"], line.get("reason")) for line in lines if line["log_level"] != "debug"]
    assert said == [
        (WAITING, "down"),
        (WAITING, "still down, differently"),
        (UP, None),
        (LOST, "the socket is closed"),
        (WAITING, "down"),
    ]
    assert is_clean(repr(lines), "jwt-1-secret")


async def test_a_connection_that_is_lost_every_minute(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """An hour of it is a dozen lines at most, with counts, and one when it is over."""
    far = CloudlyStandIn()
    with capture_logs() as lines:
        link_to(far, nursery)
        await trio.sleep(10)
        for _ in range(60):
            far.away = Unavailable("down")
            far.hang_up()
            await trio.sleep(20)
            far.away = None
            await trio.sleep(40)
        await trio.sleep(3600)
    said = [line for line in lines if line["log_level"] != "debug"]
    assert len(said) <= 13, said
    assert [said[0]["event"], said[1]["event"]] == [UP, LOST]
    assert said[-1]["event"] == "connection to Cloudly no longer flapping"
    assert (said[-1]["now"], said[-1]["log_level"]) == (UP, "info")


QUOTES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "the present identity": lambda body: f"not {body['identity']['jwt']}",
    "the last identity": lambda _: "not jwt-1-secret",
    "the token": lambda _: f"not\n{TOKEN}",
    "the token at the end of a long text": lambda _: f"{'x' * 488}{TOKEN}",
}


@pytest.mark.parametrize("quote", QUOTES)
async def test_an_error_shows_no_secrets(
    autojump_clock: MockClock, quote: str, nursery: trio.Nursery
) -> None:
    """Whatever the peer quotes of what we sent, it goes no further than here."""

    def refuse(body: Mapping[str, Any]) -> Json:
        raise Refused(QUOTES[quote](body))

    far = CloudlyStandIn({SERVICES.name: refuse, LOG.name: Refused(f"no {TOKEN}")})
    link = link_to(far, nursery)
    await link.wait()
    with pytest.raises(Refused, match="getServices is refused: ") as caught:
        await link.call(SERVICES)
    assert is_clean(str(caught.value), "jwt-1-secret", "jwt-2-secret")
    assert str(caught.value).isprintable()
    with pytest.raises(Refused, match="log is refused: no …"):
        await link.call_without_identity(LOG, {"authToken": TOKEN})


async def test_a_connection_that_cannot_be_tagged(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """Requests work all the same. It is said, without the identity."""

    def refuse(body: Mapping[str, Any]) -> Json:
        raise Refused(f"no {body['payload']['jwt']}")

    far = CloudlyStandIn({SET_TAG: refuse, SERVICES.name: {"services": []}})
    with capture_logs() as lines:
        link = link_to(far, nursery)
        await link.wait()
        assert await link.call(SERVICES) == {"services": []}
    assert events(lines, "the connection cannot be tagged, pushes may not arrive") == ["no …"]


# --- pace


DOUBLING = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0, 60.0]


async def test_the_back_off_doubles(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """From one second to a minute, each shortened by up to a quarter, and not always by the same."""
    far = CloudlyStandIn(away=Unavailable("down"))
    link_to(far, nursery)
    await trio.sleep(600)
    found = gaps(far.dials)
    assert len(found) >= 10
    assert is_spread(found, DOUBLING + [60.0] * len(found))
    assert len({round(gap / wanted, 3) for gap, wanted in zip(found, DOUBLING, strict=False)}) > 3


@pytest.mark.parametrize(
    ("failure", "within"),
    [
        (Unreached("far.example.com cannot be reached: Connection refused"), 1),
        (NobodyBehind("far.example.com answered with HTTP status 502"), 5),
    ],
)
@pytest.mark.parametrize("away", [5.0, 30.0, 300.0])
async def test_the_return_of_cloudly_is_noticed_soon(
    autojump_clock: MockClock, away: float, failure: CoreflowError, within: float, nursery: trio.Nursery
) -> None:
    """Where nobody listened, or was behind a proxy, however long that was, and whenever it ends."""
    far = CloudlyStandIn()
    link_to(far, nursery)
    for number in range(8):
        await far.came_up()
        far.away = failure
        far.hang_up()
        await trio.sleep(away + 0.37 * number)
        back = trio.current_time()
        far.away = None
        await far.came_up()
        assert trio.current_time() - back <= within


@pytest.mark.parametrize(
    ("up_for", "delay", "expected"),
    [
        pytest.param(6, 0, [1.0] * 4, id="a connection that worked"),
        pytest.param(1, 0, DOUBLING, id="one that ended soon"),
        pytest.param(1, 10, DOUBLING, id="one that ended soon, and took long to make"),
    ],
)
async def test_the_back_off_begins_anew(
    autojump_clock: MockClock, up_for: float, delay: float, expected: list[float], nursery: trio.Nursery
) -> None:
    """After a connection that was up for more than five seconds, and only then."""
    far = CloudlyStandIn(delay=delay)
    link_to(far, nursery)
    hang_ups: list[float] = []
    for _ in range(4):
        await far.came_up()
        await trio.sleep(up_for)
        far.hang_up()
        hang_ups.append(trio.current_time())
    await far.came_up()
    pauses = [dial - end for dial, end in zip(far.dials[1:], hang_ups, strict=True)]
    assert is_spread(pauses, expected)


async def test_its_state_is_told_with_since_when(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """Nothing before the first attempt, then up, down with the reason, and up again."""
    far = CloudlyStandIn()
    link = Link(far.dial, TOKEN, handlers={}, wall_clock=far.wall_clock, on_up=lambda: None)
    assert link.connections() == ()
    nursery.start_soon(link.run)
    await far.came_up()
    await settle()
    (up,) = link.connections()
    assert (up.peer, up.is_up, up.fault, up.error) == ("cloudly", True, "", "")
    await trio.sleep(10)
    (later,) = link.connections()
    assert (later.since, later.checked) == (up.since, up.checked + 10)
    far.hang_up()
    await settle()
    (down,) = link.connections()
    assert (down.is_up, down.fault) == (False, "away")
    assert down.since >= later.checked
    assert down.error


async def test_a_token_that_is_refused_is_told_from_a_peer_that_is_away(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    far = CloudlyStandIn()
    far.answers[LOGIN.name] = REJECTED
    link = link_to(far, nursery)
    with pytest.raises(TokenRefused):
        await link.wait()
    (connection,) = link.connections()
    assert (connection.is_up, connection.fault) == (False, "refused")
