"""The command line without an engine: what a person and a program see."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.unit.app.worlds import BAD, GOOD, MISSING, NEWER, World, cluster, play, service

from coreflow.app.cli import deploy, present
from coreflow.app.cli.running import Format


def run(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `coreflow` in a folder of its own."""
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("COREFLOW_", "DOCKER_", "CLOUDLY", "JUMPCODE"))
    }
    return subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-m", "coreflow", *arguments],
        cwd=cwd,
        env={**kept, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("arguments", [["--help"], ["version"], ["plan", "--help"], []])
def test_help_and_version_import_no_client(arguments: list[str], tmp_path: Path) -> None:
    """Asking for help is quick: neither the SDK nor a YAML reader is imported."""
    program = (
        "import sys\nfrom coreflow.app.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as exc:\n    assert not exc.code, exc.code\n"
        "print(sorted(m for m in ('docker', 'requests', 'aiohttp') if m in sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stderr.strip() == "[]"
    assert done.stdout


def test_every_command_is_listed_with_what_it_does(tmp_path: Path) -> None:
    """`coreflow` alone shows the commands."""
    done = run(cwd=tmp_path)
    for command in ("demo", "plan", "apply", "run", "check", "version"):
        assert re.search(rf"{command}\s+\w+", done.stdout), done.stdout


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
        "Where to go from here",
    ):
        assert text in done.stdout
    assert done.stderr == ""


def test_errors_are_one_line_each(tmp_path: Path) -> None:
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
        (["plan"], {"CLOUDLY_URL": "https://c.example.com", "JUMPCODE": "x"}, "cluster files only"),
    ]
    for arguments, environ, expected in cases:
        done = run(*arguments, cwd=tmp_path, **environ)
        assert done.returncode == 1, (arguments, done)
        assert expected in done.stderr
        assert "Traceback" not in done.stderr
        assert "canary" not in done.stderr
        assert done.stdout == ""
    document = json.loads(run("plan", "--records", "gone.yaml", "--format", "json", cwd=tmp_path).stdout)
    assert "gone.yaml" in document["error"]
    assert run("plan", "--nonsense", cwd=tmp_path).returncode != 0


def test_check_says_what_is_wrong(tmp_path: Path) -> None:
    """Without an engine: settings and records are shown, the engine is marked, exit 1."""
    good = tmp_path / "good.json"
    good.write_text(json.dumps(cluster(service("a"), {"id": "b", "data": {}})))
    host = f"unix://{tmp_path}/nobody.sock"
    done = run("check", "--records", str(good), cwd=tmp_path, DOCKER_HOST=host, CORESTORE_API_TOKEN="canary")
    assert done.returncode == 1
    assert re.search(r"CORESTORE_API_TOKEN\s+\(set\)", done.stdout)
    assert "✓ records" in done.stdout
    assert "✗ record" in done.stdout
    assert "✗ engine" in done.stdout
    assert "canary" not in done.stdout + done.stderr


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
        with deploy.listening(console, Format.TEXT) as listener:
            settlement = await world.reconciler(listener).deploy(timeout=60)
        deploy.show_settlement(settlement, Format.TEXT, console)
        return console.export_text(), present.settlement_json(settlement)

    text, document = play(scene)
    assert "created service c" in text
    assert "c: 1 of 1 running" in text
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
        situation = await world.reconciler().look()
        console = _console(200)
        deploy.show_plan(situation, Format.TEXT, console)
        return console.export_text(), present.plan_json(situation)

    text, document = play(scene)
    assert document["refusal"]["names"] == ["a", "b"]
    assert f"--confirm-removal {document['refusal']['token']}" in text


def test_a_terminal_gets_bars() -> None:
    """On a terminal progress is drawn; the end looks the same."""

    async def scene() -> str:
        world = World()
        world.cloudly.set(cluster(service("a", scaleFactor=3)))
        console = _console(terminal=True)
        with deploy.listening(console, Format.TEXT) as listener:
            settlement = await world.reconciler(listener).deploy(timeout=60)
        deploy.show_settlement(settlement, Format.TEXT, console)
        return console.export_text()

    text = play(scene)
    assert "3 of 3 running" in text
    assert "Applied:" in text


def test_nothing_that_a_terminal_obeys_gets_through() -> None:
    """Control characters in names and reasons are spelled out."""
    assert present.clean("a\x1b[31mb\nc\u202e") == "a\\x1b[31mb c\\u202e"
