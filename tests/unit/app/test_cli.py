"""The command line without an engine: what a person and a program see."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, cast

import attrs
import pytest
import structlog
import trio
from rich.console import Console
from tests.unit.app.worlds import BAD, GOOD, MISSING, NEWER, World, cluster, play, service

from coreflow.adapters.engine.protocol import EngineError
from coreflow.adapters.journal import MemoryJournal
from coreflow.adapters.memory import Fault, MemoryCloudly, MemoryEngine
from coreflow.adapters.swarm.port import SwarmPort
from coreflow.app import streams
from coreflow.app.cli import check, deploy, images, main, present, progress, routes, running
from coreflow.app.cli.running import Format
from coreflow.app.journaling import Recorder
from coreflow.app.settings import load_settings
from coreflow.domain.deploy.steps import Wait
from coreflow.domain.journal import Query
from coreflow.domain.routing.certificate import Certificate
from coreflow.domain.routing.routes import HostClaim, Route, RouteTable
from coreflow.domain.swarm.convergence import Verdict

OURS = ("COREFLOW_", "DOCKER_", "CLOUDLY", "JUMPCODE")
"""How the variables begin that mean something to a command."""


def run(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `coreflow` in a folder of its own."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(OURS)}
    return subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-m", "coreflow", *arguments],
        cwd=cwd,
        env={**kept, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


class Called(Protocol):
    """Calls `coreflow` in this process, which takes none of the time that a new one needs to import it."""

    def __call__(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """The outcome, as `run` has it."""
        ...


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Called]:
    """Call `coreflow` in a folder of its own."""
    logging = structlog.get_config()

    def called(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            patch.setattr(os, "environ", os.environ.copy())
            for name in [name for name in os.environ if name.startswith(OURS)]:
                del os.environ[name]
            os.environ.update(environ)
            with pytest.raises(SystemExit) as ended:
                main(arguments)
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, cast(int, ended.value.code), out, err)

    yield called
    structlog.configure(**logging)


@pytest.mark.parametrize("arguments", [["--help"], ["version"], ["plan", "--help"], []])
def test_help_and_version_import_no_client(arguments: list[str], tmp_path: Path) -> None:
    """Asking for help is quick: the SDK is not imported, nor is, for a list of commands, a YAML reader."""
    unwanted = ["docker", "requests", "aiohttp", *(["yaml"] if len(arguments) < 2 else [])]
    program = (
        "import sys\nfrom coreflow.app.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as exc:\n    assert not exc.code, exc.code\n"
        f"print([m for m in {unwanted!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stderr.strip() == "[]"
    assert done.stdout


def test_a_plan_imports_what_it_needs(tmp_path: Path) -> None:
    """Neither the network, nor certificates, nor schedules, nor a log that nobody writes: they take as long as all the rest."""
    unwanted = ["aiohttp", "asyncio", "cryptography", "croniter", "structlog", "rich.live", "rich.table"]
    (tmp_path / "c.yaml").write_text("configData: {id: c, data: {name: c}}\nservices: []\n")
    program = (
        "import sys\nfrom coreflow.app.cli import main\n"
        "try:\n    main(['plan', 'c.yaml'])\nexcept SystemExit as exc:\n    assert exc.code == 1, exc.code\n"
        f"print([m for m in {unwanted!r} if m in sys.modules])\nassert 'docker' in sys.modules"
    )
    environ = {**os.environ, "DOCKER_HOST": "unix:///nowhere/docker.sock"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path, env=environ
    )
    assert "the engine does not answer" in done.stderr
    assert done.stdout.strip() == "[]"


def test_every_command_is_listed_with_what_it_does(call: Called) -> None:
    """`coreflow` alone shows the commands."""
    done = call()
    for command in ("demo", "plan", "apply", "run", "check", "version"):
        assert re.search(rf"{command}[:\s]+\w+", done.stdout), done.stdout


def test_images_are_pruned_one_by_one() -> None:
    """What nothing needs goes; what the engine keeps is said, and keeps no other."""

    async def scene() -> None:
        world = World()
        for version in "123":
            world.engine.add_image(f"app:{version}")
        port = SwarmPort(world.engine)
        found = tuple(image for image in await port.images() if image.reference.startswith("app:"))
        assert [image.reference for image in found] == ["app:1", "app:2", "app:3"]
        world.engine.faults.append(Fault(method="remove_image", error=EngineError(409, "conflict: in use")))
        journal = MemoryJournal()
        outcomes = await images.remove(port, found, Recorder(journal, trio.current_time))
        told = [record.entry for record in (await journal.read(Query())).records]
        assert [(one.action, one.name, one.outcome) for one in told] == [
            ("remove", image.reference, "applied" if problem is None else "failed")
            for image, problem in outcomes.items()
        ]
        assert list(outcomes.values()) == ["removing image app:1: a container is made from it", None, None]
        left = {image.reference for image in await port.images()}
        assert left & {"app:1", "app:2", "app:3"} == {"app:1"}

    play(scene)


def test_the_demo_shows_the_whole_story(tmp_path: Path) -> None:
    """On a bare machine: a plan, an apply, nothing to do, a change, a repair, a roll-back, and no error."""
    done = run("demo", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for text in (
        "Plan: 9 to create",
        "Applied: 9 created",
        "0 writes",
        "secret rotated",
        "changed by hand: replicas 5, wanted 1",
        "rolled back: task: non-zero exit (1); not tried again",
        "Still running: registry.example/mail:2.0.",
        "Applied again: 0 actions",
        "Where to go from here",
    ):
        assert text in done.stdout
    assert done.stderr == ""


def test_errors_are_one_line_each(call: Called, tmp_path: Path) -> None:
    """Missing settings, a missing file, a malformed one and an engine that is away: said plainly, exit 1."""
    bad = tmp_path / "bad.yaml"
    bad.write_text("services: [\n")
    good = tmp_path / "good.json"
    good.write_text(json.dumps(cluster(service("a"))))
    nobody = f"unix://{tmp_path}/nobody.sock"
    cases: list[tuple[list[str], dict[str, str], str]] = [
        (["plan"], {}, "CLOUDLY_URL is missing"),
        (["plan", "--records", "gone.yaml"], {"DOCKER_HOST": nobody}, "gone.yaml"),
        (["apply", "--records", str(bad)], {"DOCKER_HOST": nobody}, "bad.yaml:"),
        (["apply", "--records", str(good)], {"DOCKER_HOST": nobody}, "the engine does not answer"),
        (["plan", "--records", str(good)], {"COREFLOW_UPDATE": "canary"}, "COREFLOW_UPDATE"),
        (["plan"], {"CLOUDLY_URL": "http://127.0.0.1:9", "JUMPCODE": "x"}, "127.0.0.1:9 cannot be reached"),
    ]
    for arguments, environ, expected in cases:
        done = call(*arguments, **environ)
        assert done.returncode == 1, (arguments, done)
        assert expected in done.stderr
        assert "Traceback" not in done.stderr
        assert "canary" not in done.stderr
        assert done.stdout == ""
    document = json.loads(call("plan", "--records", "gone.yaml", "--format", "json").stdout)
    assert "gone.yaml" in document["error"]
    assert call("plan", "--nonsense").returncode != 0
    # The last one with a process of its own: it has had a network, and leaves without a word about that.
    done = run("plan", cwd=tmp_path, CLOUDLY_URL="http://127.0.0.1:9", JUMPCODE="x")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1), done


def test_check_says_what_is_wrong(tmp_path: Path) -> None:
    """Without an engine: settings and records are shown, the engine is marked, exit 1."""
    good = tmp_path / "good.json"
    good.write_text(json.dumps(cluster(service("a"), {"id": "b", "data": {}})))
    host = f"unix://{tmp_path}/nobody.sock"
    done = run("check", "--records", str(good), cwd=tmp_path, DOCKER_HOST=host, CORESTORE_API_TOKEN="canary")
    assert done.returncode == 1
    assert re.search(r"CORESTORE_API_TOKEN\s+\(set\)", done.stdout)
    assert re.search(r"ok records +cluster test +1 service record$", done.stdout, re.MULTILINE)
    assert re.search(r"failed record +service b +name is missing @ \$.services\[1\].data.name", done.stdout)
    assert re.search(r"failed engine +unix:", done.stdout)
    assert "3 of 4 failed." in done.stdout
    assert "canary" not in done.stdout + done.stderr


def test_check_goes_on_after_wrong_settings(call: Called, tmp_path: Path) -> None:
    """A missing CLOUDLY_URL is one finding among others; where nothing else can be read, the rest is left out."""
    nobody = f"unix://{tmp_path}/nobody.sock"
    done = call("check", DOCKER_HOST=nobody)
    assert done.returncode == 1
    assert re.search(r"failed setting +CLOUDLY_URL +is missing", done.stdout)
    assert re.search(r"failed engine", done.stdout)
    assert done.stderr == ""
    done = call("check", COREFLOW_UPDATE="canary", COREFLOW_UPDAT="x")
    assert done.returncode == 1
    assert re.search(r"failed setting +COREFLOW_UPDATE +\(environment\) must be", done.stdout)
    assert "engine" not in done.stdout
    assert re.search(r"^warning: .*COREFLOW_UPDAT\b", done.stderr)
    done = call("check", DOCKER_HOST=nobody, CLOUDLY_URL="http://127.0.0.1:9", JUMPCODE="canary")
    assert re.search(r"failed records +127.0.0.1:9 cannot be reached", " ".join(done.stdout.split()))
    assert "canary" not in done.stdout + done.stderr


def examine(world: World) -> list[check.Finding]:
    """What `check` finds in a world in memory."""
    found: list[check.Finding] = []
    port = SwarmPort(world.engine)

    async def scene() -> None:
        await check.examine(world.cloudly, port, "memory", world.render, found.append)

    play(scene)
    return found


def test_check_asks_for_every_image() -> None:
    """Each distinct reference once, by name, with the registry's answer."""
    world = World()
    world.engine.push("r.example/a:1")
    world.engine.add_registry("private.example", login=("u", "p"))
    images = ("r.example/a:1", "r.example/a:1", "r.example/gone:1", "private.example/x:1", GOOD)
    world.cloudly.set(cluster(*(service(f"s{n}", image) for n, image in enumerate(images))))
    findings = examine(world)
    assert [(f.what, f.ok) for f in findings[:4]] == [
        ("records", True),
        ("engine", True),
        ("API", True),
        ("manager", True),
    ]
    answers = {f.name: (f.ok, f.text) for f in findings[4:]}
    assert len(findings) == 8
    assert answers["r.example/a:1"][1].startswith("sha256:")
    assert answers["r.example/gone:1"] == (False, "not found on r.example")
    assert "login" in answers["private.example/x:1"][1]
    assert answers[GOOD][0]


def test_check_finds_what_a_plan_rejects() -> None:
    """Names and hosts that two records want, names that are taken, more than the nodes have; and what is noteworthy.

    An image that is not found hides none of it.
    """
    host: Any = {"domains": [{"name": "x.example.com", "port": 80}]}
    world = World()
    world.cloudly.set(
        cluster(
            service("a", **host),
            service("b", "r.example/gone:1", **host),
            {"id": "zz", "data": service("a")["data"]},
            service("coreflow"),
            service("d", resources={"cpuLimit": 6400}),
            service("e", scaleFactor=5000),
            service("f", domains=[{"name": "ssh.example.com", "protocol": "ssh"}]),
        )
    )
    findings = examine(world)
    failed = sorted((f.name, f.text) for f in findings if f.what == "record" and not f.ok)
    reconciler = world.reconciler()

    async def scene() -> list[tuple[str, str]]:
        plan = (await reconciler.look()).plan
        return sorted((f"service {r.name}", t) for r in plan.rejections for t in r.reasons if "gone" not in t)

    planned = play(scene)
    assert {name for name, _ in failed} == {f"service {name}" for name in ("a", "b", "coreflow", "d", "e")}
    assert set(planned) <= set(failed)
    assert "f" in {f.name for f in findings if f.is_note}


def test_check_finds_names_that_others_have_and_what_a_plan_would_hold_back() -> None:
    """What runs is looked at as well."""
    world = World()
    world.cloudly.set(cluster(service("a"), service("b")))

    async def scene() -> None:
        assert (await world.reconciler().deploy(timeout=60)).is_stable

    play(scene)
    world.cloudly.set(cluster({**service("a"), "id": "another"}))
    findings = examine(world)
    (failed,) = (f for f in findings if not f.ok)
    assert failed.text.startswith("a service named a belongs to ")
    world.cloudly.set(cluster())
    findings = examine(world)
    assert [f.what for f in findings if f.is_note] == ["removal"]
    assert all(f.ok for f in findings)


def test_check_wants_a_manager_of_a_recent_engine() -> None:
    """A worker and an old engine are named as such; nothing is asked of an engine that cannot answer."""
    world = World()
    world.engine.is_manager = False
    findings = examine(world)
    assert [(f.what, f.ok) for f in findings][-1] == ("manager", False)
    assert "this engine is a worker" in findings[-1].text
    api = [f for f in findings if f.what == "API"]
    assert [f.name for f in api] == ["1.41"]

    class Old(MemoryEngine):
        async def version(self) -> dict[str, Any]:
            return {"Version": "19.03", "ApiVersion": "1.40"}

    old = [f for f in examine(World(engine=Old())) if f.what == "API"]
    assert [(f.ok, f.name, f.text) for f in old] == [
        (False, "1.40", "1.41 or newer is needed (Docker Engine 20.10)")
    ]


def test_check_reports_unreadable_records_and_looks_at_the_engine_all_the_same() -> None:
    """Every problem of the document is a line."""
    world = World()
    world.cloudly.set({})
    findings = examine(world)
    assert [(f.what, f.ok) for f in findings] == [
        ("records", False),
        ("records", False),
        ("engine", True),
        ("API", True),
        ("manager", True),
    ]


def test_hosts_of_rejected_services_are_listed_with_the_reason() -> None:
    """`coreflow routes` shows what is missing, also where the record is at fault, and once."""

    async def scene() -> None:
        world = World()
        hosts: dict[str, Any] = {"domains": [{"name": "a.example.com"}], "ports": {"web": 80}}
        bad = service("b", volumes=[{"mountPath": "/proc", "driver": "local"}], **hosts)
        world.cloudly.set(cluster(service("a"), bad))
        reconcile_state = await world.reconciler().look()
        (missing,) = routes._rejected(reconcile_state, RouteTable())
        assert (missing.host, missing.service) == ("a.example.com", "b")
        assert missing.reason.startswith("its record is rejected: volumes[0].mountPath belongs to the kernel")
        shown = io.StringIO()
        routes.View(table=RouteTable(missing=(missing,))).print(Console(file=shown, width=200))
        assert "0 of 1 host routed." in shown.getvalue()
        assert (
            list(
                routes._rejected(
                    reconcile_state,
                    RouteTable(claims=(HostClaim(host="a.example.com", service="b", port=80),)),
                )
            )
            == []
        )

    play(scene)


def test_hosts_that_no_proxy_serves_are_not_routed() -> None:
    """They are shown with their tasks, the reason is told once, and JSON has it for each host."""
    certificate = Certificate(
        chain="", key="", names=("*.example.com",), issuer="CA", not_before=0.0, not_after=1.0
    )
    hosts = ("a.example.com", "b.example.com")
    table = RouteTable(
        routes=tuple(
            Route(host=host, service="a", port=80, destinations=(), certificate=certificate) for host in hosts
        )
    )
    view = routes.View(table=table, proxy_problem="no coretraffic runs")
    shown = io.StringIO()
    view.print(Console(file=shown, width=200))
    assert "0 of 2 hosts routed." in shown.getvalue()
    assert shown.getvalue().count("no coretraffic runs") == 1
    assert [(m["host"], m["reason"]) for m in view.json()["missing"]] == [
        (host, "no coretraffic runs") for host in hosts
    ]
    assert len(view.json()["routes"]) == 2
    assert routes.View(table=table).unrouted == ()


def test_proxies_are_looked_for_where_they_have_to_run() -> None:
    """Where the operator names networks for them, they run elsewhere."""

    async def scene() -> None:
        world = World()
        world.cloudly.set(cluster(service("a")))
        state = await world.reconciler().look()
        expected: tuple[tuple[dict[str, str], str], ...] = (
            ({}, "`coreflow apply` deploys it"),
            ({"COREFLOW_BASE_SERVICES": "corelog"}, "COREFLOW_BASE_SERVICES"),
            ({"COREFLOW_CORETRAFFIC_PEERS": "10.0.0.0/24"}, ""),
        )
        for environ, told in expected:
            problem = routes._proxy_problem(state, load_settings(environ, require_cloudly=False))
            assert told in problem
            assert bool(problem) is bool(told)

    play(scene)


# how a command ends


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_command_in_one_line(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 143 or 130, no traceback, and what was open is closed."""
    closed: list[bool] = []

    async def command() -> int:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                os.kill(os.getpid(), number)
        finally:
            closed.append(True)
        return 0

    assert running.run(command) == 128 + number
    assert capsys.readouterr().err == f"stopped by {number.name}; run it again to continue\n"
    assert closed == [True]


def test_an_interrupt_outside_of_trio_is_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    """Python's own KeyboardInterrupt, alone or in a group, ends with 130."""

    def interrupted() -> int:
        raise BaseExceptionGroup("", [ValueError(), BaseExceptionGroup("", [KeyboardInterrupt()])])

    def alone() -> int:
        raise KeyboardInterrupt

    for command in (alone, interrupted):
        assert running.guarded(command) == 130
    assert capsys.readouterr().err == "stopped by SIGINT; run it again to continue\n" * 2


def test_a_bug_is_told_by_its_place_and_never_by_its_text(capsys: pytest.CaptureFixture[str]) -> None:
    """An unexpected error could quote a secret: only its kind and where it was raised are printed."""

    async def command() -> int:
        streams.clean(cast(str, [{"canary": "canary"}]))
        return 0

    assert running.run(command, Format.JSON) == 1
    captured = capsys.readouterr()
    assert re.fullmatch(
        r"error: a bug in coreflow: AttributeError at app/streams\.py:\d+.*\n", captured.err
    ), captured.err
    document = json.loads(captured.out)
    assert document["problems"] == [document["error"]]
    assert "canary" not in captured.out + captured.err


def test_every_problem_of_a_document_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Several problems: one error line each, and a list in JSON."""

    async def command() -> int:
        await World(cloudly=MemoryCloudly({})).reconciler().look()
        return 0

    assert running.run(command, Format.JSON) == 1
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)["problems"]) == 2
    assert [line[:7] for line in captured.err.splitlines()] == ["error: ", "error: "]


@pytest.mark.parametrize(
    "arguments",
    [
        ["nope"],
        ["plan", "--nope"],
        ["plan", "--format", "xml"],
        ["apply", "--timeout", "soon"],
        ["apply", "--timeout", "nan"],
        ["apply", "--timeout=-1"],
    ],
)
def test_a_wrong_command_line_is_one_clear_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2, what is wrong, and where to read how it is right."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.match(r"error: .*\n(.*\n)?hint: coreflow (\w+ )?--help", captured.err)


def test_the_exit_status_of_a_plan() -> None:
    """0 or, if asked for, 2 where something would change; 1 where anything is wrong, changes or not."""

    async def scene() -> list[int]:
        world = World()
        world.cloudly.set(cluster(service("a")))
        new = await world.reconciler().look()
        await world.reconciler().deploy(timeout=60)
        same = await world.reconciler().look()
        world.cloudly.set(cluster(service("a"), service("b", secretBundleId="gone")))
        wrong = await world.reconciler().look()
        return [
            deploy.plan_status(reconcile_state, detailed=detailed)
            for reconcile_state in (new, same, wrong)
            for detailed in (False, True)
        ]

    assert play(scene) == [0, 2, 0, 0, 1, 1]


# what a person sees


def _console(width: int = 80, *, terminal: bool = False) -> Console:
    return Console(width=width, record=True, file=io.StringIO(), force_terminal=terminal, highlight=False)


def test_a_plan_is_readable_at_80_columns() -> None:
    """No line of a plan is wider than a terminal, and every reason is there."""

    async def scene() -> str:
        world = World()
        world.cloudly.set(cluster(service("a"), service("b", secretBundleId="x"), secrets={"x": "value"}))
        await world.reconciler().deploy(timeout=60)
        long = "c" * 60
        world.cloudly.set(
            cluster(
                service("a", NEWER, environment={f"VARIABLE_{n}": "x" for n in range(12)}),
                service("b", MISSING),
                service(long, GOOD),
                service("bad", secretBundleId="gone"),
            )
        )
        console = _console(terminal=True)
        deploy.show_plan(await world.reconciler().look(), Format.TEXT, console)
        return console.export_text()

    text = play(scene)
    assert max(map(len, text.splitlines())) <= 80
    for expected in ("image good:1 → good:2", "VARIABLE_11", "secret bundle gone does not exist", "Plan:"):
        assert expected in " ".join(text.split())


def test_results_are_shown_with_their_problems() -> None:
    """An apply's summary counts what was done and what went wrong; its JSON says the same."""

    async def scene() -> tuple[str, dict[str, Any]]:
        world = World()
        world.cloudly.set(cluster(service("a"), service("b")))
        await world.reconciler().deploy(timeout=60)
        world.cloudly.set(cluster(service("a", BAD), service("b", secretBundleId="gone"), service("c")))
        console = _console(200)
        with progress.listening(console, Format.TEXT) as listener:
            reconcile_result = await world.reconciler(listener).deploy(timeout=60)
        deploy.show_result(reconcile_result, Format.TEXT, console)
        return console.export_text(), present.result_json(reconcile_result)

    text, document = play(scene)
    text = " ".join(text.split())
    assert "+ created service c new" in text
    assert "✓ c 1 of 1 running" in text
    assert "rolled back: task: non-zero exit (1)" in text
    assert "1 rejected; 1 failed" in text.replace(" 1 failed; 1 rejected", "1 rejected; 1 failed")
    assert document["settled"] is False
    assert {o["action"] for o in document["outcomes"]} == {"create", "update", "mark failed"}
    assert [r["name"] for r in document["rejected"]] == ["b"]
    assert {s["name"]: s["state"] for s in document["services"]} == {"a": "done", "c": "done"}


def test_a_refusal_says_how_to_confirm() -> None:
    """The plan names the services and the word that confirms exactly these."""

    async def scene() -> tuple[str, dict[str, Any]]:
        world = World()
        world.cloudly.set(cluster(service("a"), service("b")))
        await world.reconciler().deploy(timeout=60)
        world.cloudly.set(cluster())
        reconcile_state = await world.reconciler().look()
        console = _console(200)
        deploy.show_plan(reconcile_state, Format.TEXT, console)
        return console.export_text(), present.plan_json(reconcile_state)

    text, document = play(scene)
    assert document["refusal"]["names"] == ["a", "b"]
    assert f"--confirm-removal {document['refusal']['token']}" in text


def test_a_terminal_gets_bars() -> None:
    """On a terminal progress is drawn; the end looks the same."""

    async def scene() -> str:
        world = World()
        world.cloudly.set(cluster(service("a", scaleFactor=3)))
        console = _console(terminal=True)
        with progress.listening(console, Format.TEXT) as listener:
            reconcile_result = await world.reconciler(listener).deploy(timeout=60)
        deploy.show_result(reconcile_result, Format.TEXT, console)
        return console.export_text()

    text = play(scene)
    assert "✓ a  3 of 3 running" in text
    assert "Applied:" in text


def test_the_board_has_room_for_a_few() -> None:
    """Three hundred services under way: some of them, how many more, and how many of all are done."""
    board = progress.Board(_console(terminal=True))
    verdicts = {f"s{n}": Verdict(service=f"s{n}", running=0, wanted=1, detail="pending") for n in range(299)}
    console = _console(terminal=True)
    console.print(board)
    assert console.export_text().strip() == ""
    board.progressed({**verdicts, "z": Verdict(service="z", running=1, wanted=1, done=True)})
    console.print(board)
    text = console.export_text()
    assert "s11  0 of 1 ready  pending" in text
    assert "s12 " not in text
    assert "… and 287 more" in text
    assert "1 of 300 services" in text


def test_lines_off_a_terminal_are_whole_and_without_colour() -> None:
    """Nothing wraps and no escape sequence is written, however long a reason is."""
    stream = io.StringIO()
    console = Console(file=stream, highlight=False)

    async def scene() -> None:
        world = World()
        world.cloudly.set(cluster(service("a", environment={f"VARIABLE_{n}": "x" for n in range(40)})))
        await world.reconciler().deploy(timeout=60)
        world.cloudly.set(cluster(service("a")))
        with progress.listening(console, Format.TEXT) as listener:
            reconcile_result = await world.reconciler(listener).deploy(timeout=60)
        deploy.show_result(reconcile_result, Format.TEXT, console)

    play(scene)
    (line,) = [line for line in stream.getvalue().splitlines() if "updated service" in line]
    assert "VARIABLE_0" in line
    assert "VARIABLE_39" in line
    assert "\x1b" not in stream.getvalue()


def test_json_comes_alone() -> None:
    """With JSON there is no progress."""
    console = _console(terminal=True)
    with progress.listening(console, Format.JSON) as listener:
        listener.progressed({"a": Verdict(service="a", running=0, wanted=1)})
    assert console.export_text() == ""


def test_time_that_is_up_is_said() -> None:
    """A service that does not get to run is a problem with its reason, and Swarm goes on."""

    async def scene() -> str:
        world = World()
        world.cloudly.set(cluster(service("a", BAD)))
        console = _console(200)
        reconcile_result = await world.reconciler().deploy(timeout=5)
        deploy.show_result(reconcile_result, Format.TEXT, console)
        return console.export_text()

    text = play(scene)
    assert re.search(r"! unfinished  a  0 of 1 ready: exits: task: non-zero exit \(1\)", text)
    assert "The time is up." in text


def test_nothing_that_a_terminal_obeys_gets_through() -> None:
    """Control characters in names and reasons are spelled out."""
    assert streams.clean("a\x1b[31mb\nc\u202e") == "a\\x1b[31mb c\\u202e"


def test_what_the_engine_refuses_is_a_problem_with_its_reason() -> None:
    """A failed action and what it blocks are lines of the progress, and problems at the end."""

    async def scene() -> str:
        world = World()
        world.cloudly.set(cluster(service("a", secretBundleId="x"), secrets={"x": "canary"}))
        world.engine.faults += [Fault(method="create_secret", error=EngineError(400, "too odd"))] * 20
        console = _console(200)
        with progress.listening(console, Format.TEXT) as listener:
            reconcile_result = await world.reconciler(listener).deploy(timeout=5)
        deploy.show_result(reconcile_result, Format.TEXT, console)
        return console.export_text()

    text = play(scene)
    assert re.search(r"! failed: create secret +a-\w+ +creating secret .*: too odd", text)
    assert re.search(r"! blocked: create service +a +an earlier step failed", text)
    assert re.search(r"! not done +a-\w+ +create secret: creating secret", text)
    assert "Applied: 2 created; 0 services as desired; 2 not done." in text
    assert deploy.GOES_ON not in text
    assert "canary" not in text


def test_notes_and_waits_have_blocks_of_their_own() -> None:
    """What is worth knowing and what waits is shown, and is no problem."""

    async def scene() -> tuple[str, int]:
        world = World()
        world.engine.add_node("node2")
        world.cloudly.set(cluster(service("a", scaleFactor=2, volumes=[{"mountPath": "/data"}])))
        reconcile_state = await world.reconciler().look()
        unit = reconcile_state.plan.steps[-1].unit
        waits = (Wait(unit, "b", "runs until a does (renamed)"),)
        reconcile_state = attrs.evolve(reconcile_state, plan=attrs.evolve(reconcile_state.plan, waits=waits))
        console = _console(200)
        deploy.show_plan(reconcile_state, Format.TEXT, console)
        document = present.plan_json(reconcile_state)
        assert document["waits"] == [
            {"name": "b", "unit": unit, "reason": "runs until a does (renamed)", "until": None}
        ]
        assert document["notes"][0]["name"] == "a"
        return console.export_text(), deploy.plan_status(reconcile_state, detailed=False)

    text, status = play(scene)
    assert re.search(r"waiting\n +· wait +b +runs until a does", text)
    assert re.search(r"notes\n +i note +a +several replicas", text)
    assert "problems" not in text
    assert status == 0


def test_version_asks_the_engine_only_if_told(call: Called, tmp_path: Path) -> None:
    """Without an engine the versions are printed, and with --engine one line says that it is away."""
    nobody = f"unix://{tmp_path}/nobody.sock"
    done = call("version", DOCKER_HOST=nobody)
    assert done.returncode == 0
    assert re.fullmatch(r"coreflow .+\nPython 3\.\d+\.\d+.*\n", done.stdout)
    done = call("version", "--engine", DOCKER_HOST=nobody)
    assert done.returncode == 1
    told = rf"error: .*the engine does not answer \({nobody}: .*\nhint: is Docker running there.*\n"
    assert re.fullmatch(told, done.stderr)
