"""No peer can make us tell a secret: whatever it quotes of what it was sent, however it spells it, cut or whole.

Every secret of the records is a canary of its own. Each call of the engine fails once with an echo of its request, and
tasks and roll-outs tell what they were made from; then nothing that comes out of the process may hold a canary: log,
terminal, JSON, labels, metrics, and what is sent to Cloudly.
"""

import base64
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import pytest
import structlog
import trio
from attrs import define, field
from rich.console import Console
from tests.unit.app.worlds import World, bundle, cluster, new_engine, play, service

from coreflow.adapters.engine.protocol import EngineError, EngineUnreachable
from coreflow.adapters.exposition import exposition
from coreflow.adapters.journal import Limits, open_sqlite_journal
from coreflow.adapters.memory import MemoryEngine, Registry
from coreflow.adapters.swarm.port import SwarmPort
from coreflow.app import logs, status_document
from coreflow.app.cli import deploy, present
from coreflow.app.cli import explain as cli_explain
from coreflow.app.cli import status as cli_status
from coreflow.app.cli.progress import Lines
from coreflow.app.cli.running import Format
from coreflow.app.confidential import Confidential
from coreflow.app.journaling import Recorder
from coreflow.app.loop import ActionLog
from coreflow.app.reconcile import Reconciler
from coreflow.app.telling import redacting
from coreflow.domain.deploy.result import ReconcileResult
from coreflow.domain.errors import CoreflowError
from coreflow.domain.redaction.spellings import views
from coreflow.domain.status.explain import explain
from coreflow.domain.status.make import make_status
from coreflow.domain.status.metrics import MetricOptions, status_metrics
from coreflow.domain.status.parts import Facts

Json = dict[str, Any]

CANARIES = {
    "env": 'cAnary-of-env/ü+"x y',
    "short": "c4",
    "template": "cAnary-of-{{ .Template }}",
    "group": "cAnary-of-group:%41/\\",
    "login": "cAnary-of-login",
    "option": "cAnary-of-option",
    "check": "cAnary-of-check",
    "own": "cAnary-of-ourselves",
}


def records() -> Json:
    """A cluster whose every secret is a canary."""
    chosen, group = bundle(CANARIES["group"])
    login = {"serveraddress": "registry.example.com", "username": "u", "password": CANARIES["login"]}
    return cluster(
        service(
            "web",
            "registry.example.com/team/app:1",
            environment={
                "LONG": CANARIES["env"],
                "PIN": CANARIES["short"],
                "TEXT": CANARIES["template"],
                "DATABASE": f"postgres://user:{CANARIES['env'][:13]}@db/x",
            },
            secretBundleId="bundle",
            volumes=[{"mountPath": "/data", "driver": "local", "options": {"o": CANARIES["option"]}}],
            healthCheck={"command": ["CMD", "true", CANARIES["check"]]},
        ),
        registries=[],
        secretBundles=[chosen],
        secretGroups=[group],
    ) | {"configData": {"id": "test", "data": {"name": "test", "registryInfo": login}}}


ECHOES: dict[str, Callable[[str], str]] = {
    "plain": str,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64, shifted": lambda text: base64.b64encode(b"HTTP 400: " + text.encode()).decode(),
    "URL": lambda text: quote(text, safe=""),
    "JSON": json.dumps,
    "Go": lambda text: json.dumps(text, ensure_ascii=False),
    "hex": lambda text: text.encode().hex(),
}
CUTS = (1.0, 0.7, 0.35)
"""How much of an echo arrives."""


def flat(*request: object) -> str:
    """A request as a proxy might dump it."""
    return json.dumps(request, ensure_ascii=False, default=str)


@define
class Echoing:
    """An engine that answers calls of a kind with an error that quotes them, and has texts that quote what runs."""

    engine: MemoryEngine
    fails: frozenset[str]
    spell: Callable[[str], str]
    status: int | None = 400
    """None: no answer, with the request in what the library says."""
    told: bool = False
    """Whether tasks and roll-outs quote what they were made from."""
    echoed: list[str] = field(factory=list)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.engine, name)
        if name not in self.fails:
            return method

        async def echo(*request: object) -> Any:
            self.echoed.append(name)
            text = f"cannot do it: {self.spell(flat(*request))}"
            raise EngineUnreachable(text) if self.status is None else EngineError(self.status, text)

        return echo

    async def list_services(self) -> list[Json]:
        """With the whole spec in the message of the roll-out."""
        documents = await self.engine.list_services()
        for document in documents if self.told else ():
            text = f"update paused: {self.spell(flat(document['Spec']))}"
            document["UpdateStatus"] = {"State": "paused", "Message": text}
        return [*documents]

    async def list_tasks(self) -> list[Json]:
        """With the whole spec in their errors."""
        documents = await self.engine.list_tasks()
        for document in documents if self.told else ():
            text = f"driver failed: {self.spell(flat(document['Spec']))}"
            document["Status"] |= {"Err": text, "Message": text, "State": "rejected"}
        return [*documents]


def new_swarm() -> MemoryEngine:
    """An engine with the image of the records in a registry that wants the login."""
    engine = new_engine()
    engine.registries["registry.example.com"] = Registry(
        images={"team/app:1": "sha256:" + "ab" * 32}, login=("u", CANARIES["login"])
    )
    return engine


@contextmanager
def logged(log_format: str, sink: list[str]) -> Iterator[None]:
    """Everything that is logged, as it is written and as Cloudly gets it."""
    before = structlog.get_config()
    shipped: list[str] = []
    with (
        redirect_stderr(io.StringIO()) as out,
        logs.tapped(lambda _, event: shipped.append(str(dict(event)))),
    ):
        logs.configure(log_format, "debug")
        try:
            yield
        finally:
            structlog.configure(**before)
    sink += [*out.getvalue().splitlines(), *shipped]


def leaves(value: object) -> Iterator[str]:
    """Every text in a document."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from (str(key), *leaves(item))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from leaves(item)
    else:
        yield str(value)


async def outputs(engine: Any, log_format: str) -> list[str]:
    """Plan and apply, and all that comes of it."""
    world = World(engine=engine)
    world.cloudly.set(records())
    known = Confidential([CANARIES["own"]])
    sink: list[str] = []
    console = Console(file=io.StringIO(), width=10_000)
    with logged(log_format, sink), redacting(known.redact_ours):
        for listener in (ActionLog(), Lines(console)):
            reconciler = Reconciler(
                world.cloudly,
                SwarmPort(engine, redact=known.redact),
                render=world.render,
                listener=listener,
                known=known,
            )
            try:
                reconcile_state = await reconciler.look(refresh=True)
                reconcile_result = await reconciler.deploy(timeout=3)
            except CoreflowError as exc:
                structlog.get_logger().warning("waiting", reason=str(exc))
                sink += [str(exc)]
                continue
            deploy.show_plan(reconcile_state, Format.TEXT, console)
            deploy.show_result(reconcile_result, Format.TEXT, console)
            sink += [
                *leaves(present.plan_json(reconcile_state)),
                *leaves(present.result_json(reconcile_result)),
                *status_texts(reconcile_result),
            ]
    sink += console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    live = engine.engine if isinstance(engine, Echoing) else engine
    for document in await live.list_services():
        sink += [f"{name}={text}" for name, text in document["Spec"]["Labels"].items()]
    return sink


def status_texts(result: ReconcileResult) -> Iterator[str]:
    """The status, and everything about each service, as documents and on the screen."""
    facts = Facts(now=result.last.observed.time, looked=result.last.observed.time, result=result)
    status, _ = make_status(facts)
    yield from leaves(status_document.document(status))
    yield exposition(lambda: status_metrics(status, MetricOptions())).text
    for one in status.services:
        told = explain(facts, status, one.name)
        assert told is not None
        yield from leaves(status_document.document(told))
        console = Console(file=io.StringIO(), width=10_000)
        cli_explain.show(console, told)
        cli_status.show(console, status, "by a test", everything=True)
        yield from console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def shown(texts: list[str]) -> list[str]:
    """Those in which a canary can be seen, in whatever spelling."""
    return [
        text
        for text in dict.fromkeys(texts)  # most are said in several ways of telling
        if any("canar" in view.text.lower() or "PIN=c4" in view.text for view in views(text[:20_000]))
    ]


WRITES = ("create_service", "create_secret", "create_network", "update_service", "remove_service")
READS = ("inspect_distribution", "inspect_image", "list_secrets", "list_nodes")


@pytest.mark.parametrize(
    ("status", "log_format"),
    [(400, "json"), (400, "console"), (409, "json"), (500, "console"), (None, "json")],
)
@pytest.mark.parametrize("fails", [*WRITES, *READS])
def test_errors_of_the_engine(fails: str, status: int | None, log_format: str) -> None:
    """Whichever call fails with an echo of its request, no canary comes out."""
    spell = ECHOES["plain" if status == 400 else "base64" if status == 500 else "JSON"]
    echoing = Echoing(new_swarm(), frozenset({fails}), spell, status)
    texts = play(lambda: outputs(echoing, log_format))
    assert echoing.echoed or fails in ("create_network", "update_service", "remove_service")
    assert shown(texts) == []
    quoting = (
        status != 409 and fails != "inspect_distribution"
    )  # of those, not the text is told but what it means
    assert not (echoing.echoed and quoting) or any("cannot do it" in text for text in texts)


@pytest.mark.parametrize("kept", CUTS)
@pytest.mark.parametrize("spelling", ECHOES)
@pytest.mark.parametrize("fails", ["create_service", "create_secret", "inspect_distribution"])
def test_spellings_and_cuts(fails: str, spelling: str, kept: float) -> None:
    """However the request is spelt, and wherever the echo was cut."""

    def spell(text: str) -> str:
        spelt = ECHOES[spelling](text)
        return spelt[: int(len(spelt) * kept)]

    echoing = Echoing(new_swarm(), frozenset({fails}), spell)
    texts = play(lambda: outputs(echoing, "json"))
    assert echoing.echoed
    assert shown(texts) == []


@pytest.mark.parametrize("kept", CUTS)
@pytest.mark.parametrize("spelling", ECHOES)
def test_texts_of_tasks_and_roll_outs(spelling: str, kept: float) -> None:
    """What tasks and roll-outs say of what they were made from is told in plans, verdicts and labels without it."""

    def spell(text: str) -> str:
        spelt = ECHOES[spelling](text)
        return spelt[: int(len(spelt) * kept)]

    engine = new_swarm()
    play(lambda: outputs(engine, "json"))
    texts = play(lambda: outputs(Echoing(engine, frozenset(), spell, told=True), "json"))
    assert any("driver failed" in text for text in texts)
    assert shown(texts) == []


def noon() -> float:
    """A clock that stands still."""
    return 1_700_000_000.0


def bytes_in(folder: Path) -> list[bytes]:
    """Everything that is in its files."""
    return [path.read_bytes() for path in folder.iterdir()]


@pytest.mark.parametrize("spelling", ["plain", "base64", "JSON"])
@pytest.mark.parametrize("fails", ["create_service", "create_secret"])
def test_the_file_of_the_journal(fails: str, spelling: str, tmp_path: Path) -> None:
    """Whatever an error quotes, the bytes of the journal's files hold no canary, and what was done is in them."""
    echoing = Echoing(new_swarm(), frozenset({fails}), ECHOES[spelling])
    found: list[bytes] = []

    async def scene() -> None:
        world = World(engine=cast(MemoryEngine, echoing))
        world.cloudly.set(records())
        known = Confidential([CANARIES["own"]])
        with redacting(known.redact_ours):
            async with open_sqlite_journal(tmp_path, Limits(), noon) as journal:
                reconciler = Reconciler(
                    world.cloudly,
                    SwarmPort(echoing, redact=known.redact),
                    render=world.render,
                    known=known,
                    recorder=Recorder(journal, noon),
                )
                await reconciler.reconcile(refresh=True)
                await journal.kept()
                assert not journal.problem
                found.extend(bytes_in(tmp_path))  # with the log

    trio.run(scene)
    found.extend(bytes_in(tmp_path))
    texts = [
        text for data in found for text in re.split(r"[^ -~\x80-\uffff]+", data.decode(errors="replace"))
    ]
    assert any("cannot do it" in text for text in texts)
    assert shown(texts) == []


def test_the_last_line() -> None:
    """A text that nobody redacted is redacted on its way into the log, wherever in an event it stands."""
    sink: list[str] = []
    known = Confidential([CANARIES["own"]])
    with logged("json", sink), redacting(known.redact_ours):
        log = structlog.get_logger()
        log.warning(
            "held", reason=CANARIES["own"], more=[CANARIES["own"]], deep={"a": {"b": CANARIES["own"]}}
        )
        log.warning("held", error=ValueError(CANARIES["own"]))
        log.info("held", reason="at https://user:canary@host", other="-----BEGIN X-----\ncanary")
    assert len(sink) == 3
    assert shown(sink) == []
    assert all("…" in line or "\\u2026" in line for line in sink)
