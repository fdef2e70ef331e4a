"""Habits of command lines: versions, help, verbosity, completion, questions, and output for programs."""

import io
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import trio
from rich.console import Console
from tests.unit.app.test_cli import Called, call
from tests.unit.app.worlds import World, cluster, play, service

from coreflow.adapters.memory import MemoryCloudly
from coreflow.app.cli import (
    COMMANDS,
    app,
    backups,
    daemon,
    deploy,
    present,
    progress,
    running,
    verbosity,
)
from coreflow.app.cli.asking import is_anybody_there, is_meant
from coreflow.app.cli.running import Format
from coreflow.app.settings import load_settings
from coreflow.domain.backup.snapshots import BACKUP_TAG, Snapshot
from coreflow.domain.errors import PreconditionFailed
from coreflow.domain.records.models import ServiceRecord

__all__ = ["call"]  # a fixture
NOWHERE = {"DOCKER_HOST": "unix:///nowhere/docker.sock"}


@pytest.fixture
def _normal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin and end without anybody having chosen how much is said."""
    monkeypatch.setattr(
        verbosity, "_verbosity", type(verbosity._verbosity)("v", default=verbosity.Verbosity.NORMAL)
    )


pytestmark = pytest.mark.usefixtures("_normal")


@pytest.mark.parametrize("arguments", [["--version"], ["-V"], ["plan", "--version"]])
def test_the_version_is_one_line(call: Called, arguments: list[str]) -> None:
    done = call(*arguments)
    assert done.returncode == 0
    assert re.fullmatch(r"coreflow [0-9.]+\n", done.stdout)


def test_help_is_a_command_too(call: Called) -> None:
    """It says the same as the option, and knows no command that there is not."""
    for command in COMMANDS:
        assert call("help", command).stdout == call(command, "--help").stdout
    assert call("help").stdout == call("--help").stdout == call().stdout
    wrong = call("help", "plam")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith('error: Unknown command "plam"')


def test_piped_help_has_whole_lines_without_blanks_behind(call: Called) -> None:
    for command in (None, *COMMANDS):
        text = call("help", *([command] if command else [])).stdout
        assert text
        assert [line for line in text.splitlines() if line != line.rstrip()] == []
    assert COMMANDS["routes"][1] in call("help").stdout


@pytest.mark.parametrize("command", ["plan", "apply", "run", "check", "routes", "images"])
def test_a_file_by_itself_is_the_one_with_the_records(command: str, call: Called, tmp_path: Path) -> None:
    """Behind the name of a command, with the option or without; twice is a mistake."""
    assert (
        call(command, "gone.yaml", "more.yaml").stderr.splitlines()[1]
        == "hint: did you mean --records more.yaml?"
    )
    parsed = [
        app.parse_args(tokens)[1].arguments
        for tokens in ([command, "a.yaml"], [command, "--records", "a.yaml"])
    ]
    assert parsed == [{"records": Path("a.yaml")}] * 2


def test_a_file_without_a_command_is_met_with_one(call: Called) -> None:
    done = call("my cluster.yaml")
    assert done.returncode == 2
    assert "hint: did you mean coreflow plan --records 'my cluster.yaml'?" in done.stderr
    assert "did you mean coreflow" not in call("rum").stderr


@pytest.mark.parametrize("command", ["down", "networks", "schema", "version"])
def test_no_option_is_suggested_that_a_command_has_not(command: str, call: Called) -> None:
    done = call(command, "cluster.yaml")
    assert done.returncode == 2
    assert done.stderr == f"error: not expected: cluster.yaml\nhint: coreflow {command} --help\n"


def test_a_backup_by_itself_is_met_with_the_option(call: Called) -> None:
    done = call("restore", "shop", "b 1")
    assert done.returncode == 2
    assert "hint: did you mean --backup 'b 1'?" in done.stderr
    assert "a.yaml" in call("restore", "shop", "a.yaml").stderr
    done = call("backup", "shop", "a.yaml", "b.json")
    assert "hint: did you mean --records b.json?" in done.stderr


def test_a_daemon_follows_the_file_it_is_given(tmp_path: Path) -> None:
    """Whatever CLOUDLY_URL says; a name may hold what an URL may not."""
    path = tmp_path / "a #1 ü?.yaml"
    settings = daemon.of_file(
        load_settings({"CLOUDLY_URL": "https://cloudly.example"}, require_cloudly=False), path
    )
    assert not settings.needs_network
    row = next(row for row in settings.describe() if row.name == "CLOUDLY_URL")
    assert row.source == "--records"

    async def scene() -> None:
        from coreflow.adapters.file import FileCloudly

        assert FileCloudly.from_url(settings.cloudly_url or "").path == path

    trio.run(scene)


# how much is said


def test_verbose_shows_where_a_bug_was_raised_and_no_value(capsys: pytest.CaptureFixture[str]) -> None:
    verbosity.choose(verbose=True, quiet=False)

    async def command() -> int:
        try:
            raise KeyError("canary")
        except KeyError as exc:
            raise RuntimeError("canary") from exc

    assert running.run(command) == 1
    err = capsys.readouterr().err
    assert "error: a bug in coreflow: RuntimeError" in err
    assert re.search(r"KeyError, raised at.*File .*RuntimeError, raised at.*in command", err, re.DOTALL)
    assert "Error: canary" not in err
    assert "('canary')" not in err


def test_verbose_logs_every_call_of_the_engine(call: Called, tmp_path: Path) -> None:
    """With its answer, on standard error; results stay alone."""
    (tmp_path / "c.yaml").write_text("configData: {id: c, data: {name: c}}\nservices: []\n")
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        server = threading.Thread(target=_refuse_all, args=(listening,))
        server.start()
        try:
            loud = call("-v", "plan", "c.yaml", "--format", "json", DOCKER_HOST=f"unix://{path}")
        finally:
            with socket.socket(socket.AF_UNIX) as last:
                last.connect(str(path))
            server.join()
    assert re.search(r"engine call +call='?GET /[a-z0-9./]+'? +status=418", loud.stderr), loud.stderr
    assert list(json.loads(loud.stdout)) == ["error", "problems"]
    assert loud.returncode == 1


def _refuse_all(listening: socket.socket) -> None:
    """Answer every request with 418, until somebody connects and asks nothing."""
    while True:
        connection, _ = listening.accept()
        with connection:
            if not connection.recv(65536):
                return
            body = b'{"message": "no"}'
            head = f"HTTP/1.1 418 No\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            connection.sendall(head.encode() + body)


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", "c.yaml"],
        ["apply", "c.yaml"],
        ["check", "c.yaml"],
        ["routes", "c.yaml"],
        ["images", "c.yaml"],
        ["backup", "shop", "c.yaml"],
        ["down"],
        ["networks"],
        ["version", "--engine"],
    ],
)
def test_an_engine_that_is_away_is_named_with_the_usual_cures(
    arguments: list[str], call: Called, tmp_path: Path
) -> None:
    """Whichever command asks for it."""
    record = {"id": "svc-shop", "data": {"name": "shop", "registryTarget": {"imageUrl": "shop:1"}}}
    document = {"configData": {"id": "c", "data": {"name": "c"}}, "services": [record]}
    (tmp_path / "c.yaml").write_text(json.dumps(document))
    done = call(*arguments, **NOWHERE)
    assert done.returncode == 1
    told = done.stdout + done.stderr
    assert "unix:///nowhere/docker.sock" in told
    assert running.ENGINE_AWAY in told, told


@pytest.mark.parametrize("arguments", [["run"], ["plan"], ["backups", "shop"], ["restore", "shop"]])
def test_whoever_names_no_records_learns_how_for_that_command(arguments: list[str], call: Called) -> None:
    done = call(*arguments)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"hint: {running.NO_RECORDS}"
    assert "--records" in call("help", arguments[0]).stdout


def test_usage_names_what_may_stand_there(call: Called) -> None:
    for command in COMMANDS:
        usage = call("help", command).stdout.splitlines()[0]
        assert "ARGS" not in usage
        takes_file = bool(re.search(r"RECORDS, --records", call("help", command).stdout))
        assert usage.endswith(" [FILE]") == takes_file, usage
    assert call("help", "status").stdout.startswith("Usage: coreflow status [OPTIONS] [SERVICE]\n")


def test_a_wrong_command_line_names_the_word_and_the_help_of_its_command(call: Called) -> None:
    assert call("plan", "a.yaml", "extra").stderr.splitlines() == [
        "error: not expected: extra",
        "hint: coreflow plan --help",
    ]
    assert call("rum").stderr.splitlines()[-1] == "hint: coreflow --help"


def test_each_timeout_says_what_for(call: Called) -> None:
    assert "until everything runs" in call("help", "apply").stdout
    assert "until everything runs" not in call("help", "down").stdout


def test_quiet_leaves_hints_out(call: Called) -> None:
    loud, quiet = call("plan", **NOWHERE), call("-q", "plan", **NOWHERE)
    assert loud.returncode == quiet.returncode == 1
    assert "hint: " in loud.stderr
    assert quiet.stderr.startswith("error: ")
    assert "hint: " not in quiet.stderr


def test_check_shows_what_differs_from_the_defaults(call: Called) -> None:
    """With --verbose everything, quietly only what is wrong."""
    some, every = call("check", **NOWHERE), call("check", "-v", **NOWHERE)
    assert "DOCKER_HOST" in some.stdout
    assert "COREFLOW_PRUNE" not in some.stdout
    assert re.search(r"\d+ as they are by default: -v shows them", some.stdout)
    assert "COREFLOW_PRUNE" in every.stdout
    assert "by default" not in every.stdout
    quiet = call("check", "-q", **NOWHERE)
    assert "settings" not in quiet.stdout
    assert re.search(r"failed +engine", quiet.stdout)


def test_check_has_json(call: Called, tmp_path: Path) -> None:
    """All settings, no secret, and every finding."""
    (tmp_path / "c.yaml").write_text("configData: {id: c, data: {name: c}}\nservices: []\n")
    done = call("check", "c.yaml", "--format", "json", JUMPCODE="canary", **NOWHERE)
    document = json.loads(done.stdout)
    assert done.returncode == 1
    assert not document["ok"]
    settings = {row["name"]: row for row in document["settings"]}
    assert settings["JUMPCODE"] == {
        "name": "JUMPCODE",
        "value": "(set)",
        "source": settings["JUMPCODE"]["source"],
    }
    assert settings["COREFLOW_PRUNE"] == {"name": "COREFLOW_PRUNE", "value": "true", "source": "default"}
    assert {check_["what"]: check_["ok"] for check_ in document["checks"]} == {
        "records": True,
        "engine": False,
    }
    assert "canary" not in done.stdout + done.stderr


def test_version_has_json(call: Called) -> None:
    document = json.loads(call("version", "--format", "json").stdout)
    assert document == {"coreflow": document["coreflow"], "python": sys.version.split()[0], "engine": None}


# completion


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pl"], {"plan"}),
        (["plan", "--re"], {"--records", "--refresh", "--retry-failed"}),
        (["apply", "--format", ""], {"text", "json", "jsonl"}),
        (["plan", "clus"], {"cluster.yaml"}),
        (["-"], {"--verbose", "-v", "--quiet", "-q", "--help", "-h", "--version", "-V"}),
    ],
)
def test_bash_completes(words: list[str], expected: set[str], call: Called, tmp_path: Path) -> None:
    """The script that is printed, in the shell that it is for."""
    (tmp_path / "cluster.yaml").touch()
    (tmp_path / "script").write_text(call("completion", "bash").stdout)
    program = 'source ./script; COMP_WORDS=(coreflow "$@"); COMP_CWORD=$#; _coreflow; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "-c", program, "bash", *words], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) == expected


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_every_command(shell: str, call: Called) -> None:
    text = call("completion", shell).stdout
    assert all(re.search(rf"\b{command}\b", text) for command in COMMANDS)


# questions


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "meant"), [("yes\n", True), ("y\n", False), ("", False), ("no\n", False)])
def test_only_yes_is_an_answer(answer: str, meant: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    out = _Terminal()
    monkeypatch.setattr(sys, "stdin", _Terminal(answer))
    monkeypatch.setattr(sys, "stdout", out)
    assert is_anybody_there()
    assert trio.run(is_meant, "Overwrite it?") is meant
    assert out.getvalue() == "Overwrite it? Only `yes` is an answer: "


@pytest.mark.parametrize(
    ("answer", "may_ask", "refused"),
    [
        ("yes\n", True, ""),
        ("no\n", True, "nothing was restored"),
        ("yes\n", False, "nobody to ask, and no --yes"),
        (None, True, "nobody to ask, and no --yes"),
    ],
)
def test_a_restore_wants_to_be_meant(
    answer: str | None, may_ask: bool, refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a terminal it asks; elsewhere, and beside JSON, only --yes will do."""
    monkeypatch.setattr(sys, "stdin", io.StringIO() if answer is None else _Terminal(answer))
    monkeypatch.setattr(sys, "stdout", _Terminal())
    record = _record()

    async def scene() -> str:
        try:
            await backups._confirm(record, "b1", may_ask=may_ask)
        except PreconditionFailed as exc:
            return str(exc)
        return ""

    said = trio.run(scene)
    assert (refused in said) if refused else said == ""


def _record() -> ServiceRecord:
    async def scene() -> ServiceRecord:
        (record,) = (await MemoryCloudly(cluster(service("my shop"))).records()).services
        return record

    return play(scene)


def test_a_restore_ends_with_the_command_that_takes_it_back() -> None:
    command = backups._restore_command(_record(), "before-0123", Path("a b.yaml"))
    assert command == "coreflow restore 'my shop' --backup before-0123 --records 'a b.yaml'"


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 257, "a\u200bb"])
def test_a_bad_name_of_a_backup_is_refused_with_what_is_allowed(name: str) -> None:
    with pytest.raises(PreconditionFailed, match="1 to 256 characters are allowed, all of them printable"):
        backups._checked(name)
    assert backups._checked("x" * 256) == "x" * 256


@pytest.mark.parametrize(
    ("sizes", "size", "text"), [((1024, 1), 1025, "1,025 bytes"), ((1024, None), None, "size unknown")]
)
def test_backups_are_listed_with_time_zone_and_size(
    sizes: tuple[int | None, ...], size: int | None, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [
        Snapshot(
            id=f"s{n}",
            kind="volume",
            name=f"v{n}",
            created_ms=1_700_000_000_000,
            size_bytes=of_one,
            tags={BACKUP_TAG: "b1"},
        )
        for n, of_one in enumerate(sizes)
    ]
    console = Console(file=io.StringIO(), width=200)
    unused: Any = None
    for output in (Format.TEXT, Format.JSON):
        work = backups._Work(tools=unused, operations=unused, output=output, console=console)
        work.list_backups(_record(), found, ("b1", "elsewhere"))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue()
    assert f"2023-11-14 22:13 UTC  b1         volume v0, volume v1; {text}" in lines
    assert "elsewhere  at Cloudly only" in lines
    assert "coreflow restore 'my shop' --backup b1" in lines
    (listed,) = json.loads(capsys.readouterr().out)["backups"]
    assert listed["sizeBytes"] == size
    assert [snapshot["sizeBytes"] for snapshot in listed["snapshots"]] == list(sizes)


# removals


@pytest.mark.parametrize(
    ("token", "left", "wrong"),
    [
        (None, ("b",), ""),
        ("0badc0de", ("b",), "no removal waits for a confirmation"),
        (None, (), ""),
        ("0badc0de", (), "another word than that of these services"),
        ("right", (), ""),
    ],
)
def test_a_word_that_confirms_nothing_is_a_problem(
    token: str | None, left: tuple[str, ...], wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether another word would do, or none is needed. The right one is said by the plan alone."""

    async def scene() -> str:
        world = World()
        world.cloudly.set(cluster(service("a"), service("b")))
        await world.reconciler().deploy(timeout=60)
        world.cloudly.set(cluster(*map(service, left)))
        refusal = (await world.reconciler().look()).plan.refusal
        assert (refusal is None) is bool(left)
        given = refusal.token if token == "right" and refusal is not None else token
        done = await world.reconciler(confirmed=given).deploy(timeout=60)
        assert set(await world.names()) == ({"a", "b"} if not left and token != "right" else set(left))
        found = present.wrong_token(done, given)
        deploy.show_result(done, Format.JSON, Console(), wrong_token=found)
        return found

    found = play(scene)
    document = json.loads(capsys.readouterr().out)
    assert wrong in found
    assert bool(wrong) is bool(found)
    assert document.get("wrong_token", "") == found
    assert not (found and document["settled"])


# lines of JSON


def test_an_apply_streams_what_happens(capsys: pytest.CaptureFixture[str]) -> None:
    """Planned actions, their outcomes, states of services, the result: each a line, in this order."""

    async def scene() -> None:
        world = World()
        world.cloudly.set(cluster(service("a", replica=2), service("b")))
        with progress.listening(Console(file=io.StringIO()), Format.JSONL) as listener:
            done = await world.reconciler(listener).deploy(timeout=60)
        deploy.show_result(done, Format.JSONL, Console())

    play(scene)
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    kinds = [event.pop("event") for event in events]
    assert set(kinds) == {"planned", "outcome", "service", "result"}
    assert kinds[0] == "planned"
    assert kinds.index("outcome") < kinds.index("service") < kinds.index("result") == len(kinds) - 1
    by_kind = {kind: [e for k, e in zip(kinds, events, strict=True) if k == kind] for kind in kinds}
    (result,) = by_kind["result"]
    assert result["settled"]
    assert by_kind["outcome"] == result["outcomes"]
    assert len(by_kind["planned"]) == len(result["outcomes"])
    last = {one["name"]: one for one in by_kind["service"]}
    assert list(last.values()) == result["services"]


def test_what_ends_a_stream_early_is_an_event_too(call: Called) -> None:
    done = call("apply", "--format", "jsonl", **NOWHERE)
    event = json.loads(done.stdout)
    assert (done.returncode, event["event"]) == (1, "error")
    assert event["problems"]
