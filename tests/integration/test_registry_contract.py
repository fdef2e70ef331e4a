"""What registries that misbehave look like through an engine: its texts, and the reasons that the port makes of them."""

import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trio
import trustme
from attrs import frozen
from tests.integration.engine_bench import NOWHERE, Bench
from tests.integration.engine_proxy import engine_proxy
from tests.integration.engines import ENGINE, control
from tests.integration.registry_stand_in import PASSWORD, USER

from coreflow.adapters.engine.client import open_engine
from coreflow.adapters.engine.memory.registries import ERRORS
from coreflow.adapters.engine.protocol import EngineError
from coreflow.adapters.swarm.port import SwarmPort
from coreflow.domain.errors import PortError, RateLimited, Refused, Unavailable
from coreflow.domain.records.models import RegistryLogin
from coreflow.domain.swarm.images import ImageRequest
from coreflow.domain.swarm.specs import Platform

OPEN, BASIC, BEARER = "open", "basic", "bearer"
OFF, ROUTE, NAME, PLAIN, TLS = "off", "no-route", "no-name", "plain", "tls"


@frozen
class Case:
    """A look-up that fails: which repository of which registry, and what comes of it."""

    host: str
    repository: str
    kind: type[PortError]
    says: str
    """With `{}` for the registry."""
    login: str = ""
    """A password, wrong or right; empty for no login."""
    memory: str = ""
    """What the memory Swarm calls it, if not by the name of the repository."""


NEEDED = "refused by {}: unauthorized (401): a login is needed, or there is no such image"
NOT_TAKEN = "refused by {}: unauthorized (401): it did not accept the login, or never asked for one"
PAGE = "a page that is not a registry's"
CASES = (
    Case(OPEN, "limited", RateLimited, "{}: rate limited (429)"),
    Case(OPEN, "page429", RateLimited, "{}: rate limited (429)"),
    Case(OPEN, "broken", Unavailable, "{} answers 500 Internal Server Error"),
    Case(OPEN, "down", Unavailable, "{} answers 503 Service Unavailable"),
    Case(OPEN, "page502", Unavailable, "{} answers 502 Bad Gateway"),
    Case(OPEN, "page503", Unavailable, "{} answers 503 Service Unavailable"),
    Case(OPEN, "page504", Unavailable, "{} answers 504 Gateway Timeout"),
    Case(OPEN, "page404", Unavailable, PAGE + " (nothing here a page of something else"),
    Case(OPEN, "text404", Unavailable, PAGE + " (404 page not found"),
    Case(OPEN, "portal", Unavailable, "{} answers with something that is not a registry's"),
    Case(OPEN, "silent", Unavailable, "{} hung up"),
    Case(OPEN, "missing", Refused, "not found on {}"),
    Case(OPEN, "odd", Refused, "what {} has is not an image that this engine can read"),
    Case(OPEN, "page403", Refused, "refused by {}: access denied (403), with " + PAGE),
    Case(
        OPEN,
        "denied",
        Refused,
        "refused by {}: access denied (403): a login is needed, or there is no such image",
    ),
    Case(OPEN, "denied", Refused, "refused by {}: access denied (403) to this login", PASSWORD),
    Case(OPEN, "mixed", Refused, NEEDED),
    Case(OPEN, "mixed", Refused, NOT_TAKEN, PASSWORD),
    Case(BASIC, "multi", Refused, NEEDED, memory="no-login"),
    Case(BASIC, "multi", Refused, NOT_TAKEN, "wrong", memory="mixed"),
    Case(BASIC, "missing", Refused, "not found on {}", PASSWORD),
    Case(
        BEARER,
        "token-broken",
        Unavailable,
        "{} cannot be asked: its token server answers 500 Internal Server Error",
    ),
    Case(BEARER, "token-page", Unavailable, "{} cannot be asked: its token server answers 502 Bad Gateway"),
    Case(BEARER, "token-limited", RateLimited, "{}: rate limited (429)"),
    Case(BEARER, "token-denied", Refused, "refused by {}: the login is wrong", "wrong"),
    Case(BEARER, "token-denied", Refused, NEEDED),
    Case(BEARER, "token-useless", Refused, NOT_TAKEN, PASSWORD),
    Case(OFF, "x", Unavailable, "{} does not answer: connection refused", memory="refused"),
    Case(ROUTE, "x", Unavailable, "{} does not answer: there is no route to it", memory="no-route"),
    Case(
        NAME,
        "x",
        Unavailable,
        "{} does not answer: no name server tells its address",
        memory="no-name-server",
    ),
    Case(PLAIN, "x", Unavailable, "{} answers with plain HTTP, not TLS", memory="plain"),
    Case(
        TLS,
        "x",
        Unavailable,
        "the certificate of {} is not trusted: ",
        memory="certificate",
    ),
)


@contextmanager
def stand_in(folder: Path) -> Iterator[Mapping[str, str]]:
    """The registry inside node 1; where its faces are."""
    issued = trustme.CA().issue_cert("registry.test")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(key))
    name = os.environ["COREFLOW_TEST_ENGINE_NAME"]
    script = Path(__file__).with_name("registry_stand_in.py")
    command = [
        str(ENGINE),
        "--name",
        name,
        "exec",
        "1",
        sys.executable,
        str(script),
        str(certificate),
        str(key),
    ]
    address = control(name, "exec", "1", "hostname", "-I").split()[0]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            ports = json.loads(process.stdout.readline())
            yield {
                **{face: f"127.0.0.1:{ports[face]}" for face in (OPEN, BASIC, BEARER)},
                PLAIN: f"{address}:{ports[OPEN]}",
                TLS: f"{address}:{ports['tls']}",
                OFF: "127.0.0.1:5999",
                ROUTE: "192.0.2.1",
                NAME: "registry.invalid",
            }
        finally:
            process.stdin.close()


@pytest.fixture(scope="module")
def real_hosts(engine_host: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """The faces of a registry that misbehaves, for a real engine."""
    with stand_in(tmp_path_factory.mktemp("registry")) as hosts:
        yield hosts


@pytest.fixture
def hosts(bench: Bench, request: pytest.FixtureRequest) -> Mapping[str, str]:
    """The same, for the engine of this test."""
    if bench.memory is None:
        found: Mapping[str, str] = request.getfixturevalue("real_hosts")
        return found
    return {face: f"{face}.test" for face in (OPEN, BASIC, BEARER, OFF, ROUTE, NAME, PLAIN, TLS)}


def login_of(host: str, password: str) -> RegistryLogin | None:
    """A login, unless there is no password."""
    return RegistryLogin(serveraddress=host, username=USER, password=password) if password else None


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.host}-{c.repository}{'-login' if c.login else ''}")
async def test_each_fault_has_its_reason(bench: Bench, hosts: Mapping[str, str], case: Case) -> None:
    """The registry is blamed by its name, with what it did; a transient fault is no refusal; no login is called wrong that nobody sent."""
    host = hosts[case.host]
    if bench.memory is not None:
        registry = bench.memory.add_registry(host)
        registry.errors[case.repository] = ERRORS[case.memory or case.repository]
    reference = f"{host}/{case.repository}:1"
    with pytest.raises(case.kind, match=re.escape(case.says.format(host))) as caught:
        await SwarmPort(bench.engine).resolve(ImageRequest(reference, login_of(host, case.login)))
    assert isinstance(caught.value, Unavailable) == issubclass(case.kind, Unavailable)
    assert str(caught.value).startswith(f"image {reference}: ")
    assert "\n" not in str(caught.value)
    assert case.login in {"", "wrong"} or "login is wrong" not in str(caught.value)


@pytest.mark.parametrize(
    ("repository", "platforms"),
    [
        ("multi", (Platform("linux", "amd64"), Platform("linux", "arm64"), Platform("unknown", "unknown"))),
        ("arm", (Platform("linux", "arm64"),)),
        ("arm32", (Platform("linux", ""),)),
        ("none", ()),
    ],
)
async def test_platforms_are_told(
    bench: Bench, hosts: Mapping[str, str], repository: str, platforms: tuple[Platform, ...]
) -> None:
    """The platforms of an image are those of its index, as the docker command line would place it."""
    reference = f"{hosts[OPEN]}/{repository}:1"
    if bench.memory is not None:
        bench.memory.push(reference)
        told = [{"architecture": p.architecture or "arm", "os": p.os} for p in platforms]
        bench.memory.registries[hosts[OPEN]].platforms[f"{repository}:1"] = told
    resolved = await SwarmPort(bench.engine).resolve(ImageRequest(reference))
    assert (resolved.digest or "").startswith("sha256:")
    assert resolved.platforms == platforms


@pytest.fixture
async def asked(bench: Bench, tmp_path: Path) -> AsyncIterator[Callable[[], int]]:
    """How many look-ups have gone out from this bench's engine; a real one is asked through a socket that counts."""
    if bench.memory is not None:
        memory = bench.memory
        yield lambda: sum(method == "inspect_distribution" for method, _ in memory.calls)
        return
    plain = bench.engine
    with engine_proxy(os.environ["COREFLOW_TEST_DOCKER_HOST"], tmp_path) as proxy:
        async with open_engine(proxy.url) as bench.engine:
            yield lambda: sum("/distribution/" in path for _, path in proxy.requests)
    bench.engine = plain


MANY = 20
"""Look-ups at once: far more than there are other calls at once."""


async def test_look_ups_that_hang_keep_nobody_from_the_engine(
    bench: Bench, hosts: Mapping[str, str], asked: Callable[[], int]
) -> None:
    """While a registry keeps many look-ups waiting, lists, writes, events and another registry's answers come."""
    answered: list[str] = []
    references = [f"{hosts[OPEN]}/slow:{number}" for number in range(MANY)]
    if bench.memory is not None:
        bench.memory.push(f"{hosts[BASIC]}/multi:1")
        for reference in references:
            bench.memory.push(reference)
        bench.memory.registries[hosts[OPEN]].seconds = 3600

    async def look_up(reference: str) -> None:
        with suppress(EngineError):
            await bench.engine.inspect_distribution(reference)
        answered.append(reference)

    async def all_are_asked() -> bool:
        await trio.lowlevel.checkpoint()  # in memory nothing else lets the others go on
        return asked() == MANY

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for reference in references:
                nursery.start_soon(look_up, reference)
            await bench.eventually(all_are_asked)
            async with bench.engine.events() as events:
                spec = bench.spec()
                spec["TaskTemplate"]["Placement"] = {"Constraints": [NOWHERE]}
                identity = await bench.create(spec)
                async for event in events:
                    if event["Actor"]["ID"] == identity:
                        break
            assert (await bench.task_in(identity, "pending"))["ServiceID"] == identity
            assert identity in {service["ID"] for service in await bench.engine.list_services()}
            await bench.engine.list_running_tasks()
            login = login_of(hosts[BASIC], PASSWORD)
            assert (
                await SwarmPort(bench.engine).resolve(ImageRequest(f"{hosts[BASIC]}/multi:1", login))
            ).digest
            assert answered == []
            nursery.cancel_scope.cancel()
