"""What Cloudly and the proxies quote of what they were sent, or have sent, is told by nobody here."""

import base64
import json
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import quote

import pytest
import trio
from structlog.testing import capture_logs
from tests.unit.adapters.cloudly.stand_in import TOKEN, CloudlyStandIn, follow, handlers_of, socket_pair
from tests.unit.certificates import DAY, START, make
from trio.testing import MockClock

from coreflow.adapters.cloudly import LinkOptions, NetworkCloudly
from coreflow.adapters.cloudly.methods import ASKED, LOGIN
from coreflow.adapters.coretraffic import METHOD, TAG, CoretrafficRoutes
from coreflow.adapters.net.peer import Peer
from coreflow.domain.backup.replication import Copy
from coreflow.domain.errors import CoreflowError, Refused
from coreflow.domain.redaction.redactor import TEXT_LIMIT, Redactor
from coreflow.domain.redaction.spellings import views
from coreflow.domain.routing.certificates import read_certificate
from coreflow.domain.routing.routes import Destination, HostClaim, make_table

GROUP, PASSWORD = 'cAnary-of-group/ü+"x y', "cAnary-of-login"
KNOWN = Redactor([PASSWORD], [("KEY", GROUP)])
HOST = "a.example.com"
SPELLINGS: Mapping[str, Callable[[str], str]] = {
    "plain": str,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "shifted": lambda text: base64.b64encode(f".{text}".encode()).decode(),
    "URL": lambda text: quote(text, safe=""),
    "JSON": json.dumps,
}
CUTS = (1.0, 0.8, 0.5)


def echo(spell: Callable[[str], str], kept: float, *what: object) -> str:
    """What a peer says of what it was sent, and of what it knows."""
    text = spell(json.dumps([*what, GROUP, PASSWORD], ensure_ascii=False, default=str))
    return f"cannot do it: {text[: int(len(text) * kept)]}"


def is_clean(text: str, *secrets: str) -> bool:
    """Whether none of the secrets can be seen, in whatever spelling."""
    return not any(
        secret[:8].lower() in view.text.lower()
        for view in views(text[:20_000])
        for secret in (GROUP, PASSWORD, TOKEN, "jwt-1-secret", *secrets)
    )


def calls(port: NetworkCloudly) -> Mapping[str, Callable[[], Awaitable[object]]]:
    """One call for whatever Cloudly is asked."""
    copy = Copy(name="x", size=3, sha256="0" * 64)
    return {
        "records": port.records,
        "certificate": partial(port.certificate, HOST),
        "copies": partial(port.copies, backup_id="b"),
        "put": partial(port.put_slice, copy, 0, b"one", final=True),
        "get": partial(port.get_slice, "x", 0, 3),
    }


@pytest.mark.parametrize("kept", CUTS)
@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_errors_of_cloudly(
    autojump_clock: MockClock, nursery: trio.Nursery, spelling: str, kept: float
) -> None:
    """Every method is refused with an echo of its request: no error, and no line of the log, has any of it."""

    def refuse(body: Mapping[str, Any]) -> Any:
        raise Refused(echo(SPELLINGS[spelling], kept, body))

    far = CloudlyStandIn({method.name: refuse for method in ASKED if method is not LOGIN})
    with capture_logs() as lines:
        port = follow(far, nursery, options=LinkOptions(redact=KNOWN.redact))
        await port.link.wait()
        texts = []
        for call in calls(port).values():
            with pytest.raises(CoreflowError) as caught:
                await call()
            texts.append(str(caught.value))
        port.logs.offer(1, "info", {"event": "line"})
        await trio.sleep(60)
    assert any("cannot do it" in text for text in texts)
    assert all(is_clean(text) and len(text) < TEXT_LIMIT + 100 for text in (*texts, *map(str, lines)))


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_a_login_that_is_refused(
    autojump_clock: MockClock, nursery: trio.Nursery, spelling: str
) -> None:
    """The token is not told, whichever way Cloudly quotes it."""

    def refuse(body: Mapping[str, Any]) -> Any:
        raise Refused(echo(SPELLINGS[spelling], 1.0, body))

    with capture_logs() as lines:
        port = follow(CloudlyStandIn({LOGIN.name: refuse}), nursery, options=LinkOptions(redact=KNOWN.redact))
        with pytest.raises(Refused, match="cannot do it") as caught:
            await port.link.wait()
        await trio.sleep(60)
    assert all(map(is_clean, (str(caught.value), *map(str, lines))))


@pytest.mark.parametrize("way", ["error", "status"])
@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_a_proxy_that_quotes_its_routes(
    autojump_clock: MockClock, nursery: trio.Nursery, spelling: str, way: str
) -> None:
    """Private keys stay out of the log, whole or in lines, and so does what else is known."""
    certificate = read_certificate(make(HOST), HOST, START + DAY)
    body = [line for line in certificate.key.splitlines() if not line.startswith("-")]
    said: list[str] = []

    def answer(request: Mapping[str, Any]) -> Any:
        said.append(
            echo(SPELLINGS[spelling], 1.0, request["reverseConfigs"][0]["privateKey"][-60:], body[-1])
        )
        if way == "error":
            raise Refused(said[-1])
        return {"status": "error", "errorText": said[-1]}

    near, far = socket_pair()
    ours, theirs = Peer(near), Peer(far, handlers=handlers_of({METHOD: answer}))
    routes = CoretrafficRoutes(lambda name: (ours,) if name == TAG else (), redact=KNOWN.redact)
    there = (Destination(address="10.0.0.1", task_id="t", node_id=None),)
    claim = HostClaim(host=HOST, service="web", port=80)
    for run in (ours.run, theirs.run, routes.run):
        nursery.start_soon(run)
    with capture_logs() as lines:
        routes.publish(make_table([claim], {"web": there}, {HOST: certificate}, START + DAY))
        await trio.sleep(20)
    assert said
    assert any("cannot do it" in str(line) for line in lines)
    assert all(is_clean(str(line), *body) for line in lines)
