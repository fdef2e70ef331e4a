"""`coreflow history` and what the daemon answers it: the journal over HTTP, and from the file where no daemon runs."""

import itertools
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import evolve
from tests.integration.lab import NEWER_IMAGE, Lab, free_port, open_lab

from coreflow.adapters.admin import AdminPages, serve_admin
from coreflow.adapters.journal import Limits, MemoryJournal, open_sqlite_journal
from coreflow.domain.journal import Entry, ended
from coreflow.domain.ports import Journal

guest = pytest.mark.guest
_numbers = itertools.count()
NOW = 1_700_000_000.0
SHOP = Entry(
    time=NOW, action="create", kind="service", name="shop", owner="id-shop", reason="new", asked=("push",)
)
LONGER_NAME = "shop-26a7244a571d"


def clock() -> float:
    """The time of all entries."""
    return NOW


async def fill(journal: Journal) -> None:
    """Three entries, of two services."""
    for entry, outcome in (
        (SHOP, "applied"),
        (evolve(SHOP, kind="secret", name=LONGER_NAME, action="remove"), "failed"),
        (evolve(SHOP, name="blog", owner="id-blog"), "applied"),
    ):
        detail = "the engine does not answer" if outcome == "failed" else ""
        journal.end(journal.begin(entry), ended(entry, outcome, detail, NOW + 1))
    await journal.kept()


Serve = Callable[[Journal], Awaitable[int]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serves journals until the test ends."""
    async with trio.open_nursery() as nursery:

        async def start(journal: Journal) -> int:
            port: int = await nursery.start(
                serve_admin, "127.0.0.1", 0, tuple, AdminPages(history=journal.read)
            )
            return port

        yield start
        nursery.cancel_scope.cancel()


def get(port: int, query: str = "", method: str = "GET") -> tuple[int, Any]:
    """The status and the document of an answer."""
    url = f"http://127.0.0.1:{port}/api/v1/history{query}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10) as answer:
            return answer.status, json.loads(answer.read() or "null")
    except urllib.error.HTTPError as exc:
        return exc.code, json.loads(exc.read() or "null")


def command(folder: Path, *arguments: str, port: int = 1, state: Path | None = None) -> list[str]:
    """A command line of the command, with its settings in front."""
    environ = {"COREFLOW_ADMIN_LISTEN": f"127.0.0.1:{port}"}
    if state is not None:
        environ["COREFLOW_STATE_DIR"] = str(state)
    settings = [f"{name}={value}" for name, value in environ.items()]
    return ["env", "-C", str(folder), *settings, sys.executable, "-m", "coreflow", "history", *arguments]


async def called(*arguments: str, folder: Path, **where: Any) -> tuple[int, str, str]:
    """Status and output of the command."""
    done = await trio.run_process(
        command(folder, *arguments, **where), capture_stdout=True, capture_stderr=True, check=False
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@guest
async def test_the_journal_over_http(serve: Serve) -> None:
    """All of it, of one service, from a number on; a question that is none is told what is wrong."""
    journal = MemoryJournal()
    port = await serve(journal)

    async def ask(*query: str) -> tuple[int, Any]:
        return await trio.to_thread.run_sync(partial(get, port, *query))

    assert await ask() == (200, {"kept": None, "problem": None, "last": 0, "entries": []})
    await fill(journal)
    status, answer = await ask("?service=shop")
    assert status == 200
    assert [one["name"] for one in answer["entries"]] == ["shop", LONGER_NAME]
    assert answer["entries"][0] == {
        "id": 1,
        "time": "2023-11-14T22:13:20.000Z",
        "seconds": 1.0,
        "pass": None,
        "action": "create",
        "kind": "service",
        "name": "shop",
        "owner": "id-shop",
        "reason": "new",
        "outcome": "applied",
        "detail": None,
        "asked": ["push"],
    }
    status, answer = await ask("?after=2&limit=5")
    assert [one["name"] for one in answer["entries"]] == ["blog"]
    for query in (
        "?limit=0",
        "?limit=x",
        "?after=-1",
        "?since=x",
        "?canary=1",
        "?service=%00",
    ):
        status, answer = await ask(query)
        assert status == 400, query
        assert set(answer) == {"error"}
        assert "canary" not in answer["error"]
    assert (await ask("?service=%27%20or%201=1--"))[1]["entries"] == []
    assert (await ask("", "HEAD"))[0] == 200
    assert (await ask("", "POST"))[0] == 404
    assert (await ask("", "DELETE"))[0] == 404


@guest
async def test_a_daemon_is_asked_first(serve: Serve, tmp_path: Path) -> None:
    """Its journal is shown, with where it is kept, as text, as one document, and line by line."""
    state = tmp_path / "state"
    async with open_sqlite_journal(state, Limits(), clock) as journal:
        await fill(journal)
        port = await serve(journal)
        status, out, err = await called(folder=tmp_path, port=port)
        assert (status, err) == (0, "")
        assert out.splitlines() == [
            f"from the daemon at 127.0.0.1:{port}, kept in {state}/journal.db",
            "2023-11-14 22:13:20  +   create service shop  new  (push)",
            f"2023-11-14 22:13:20  !   remove secret {LONGER_NAME}  new  failed: the engine does not answer  (push)",
            "2023-11-14 22:13:20  +   create service blog  new  (push)",
        ]
        status, out, _ = await called("shop", "--format", "json", folder=tmp_path, port=port)
        document = json.loads(out)
        assert document["source"] == f"the daemon at 127.0.0.1:{port}"
        assert [one["outcome"] for one in document["entries"]] == ["applied", "failed"]
        _, out, _ = await called("--format", "jsonl", "--limit", "1", folder=tmp_path, port=port)
        assert [json.loads(line)["name"] for line in out.splitlines()] == ["blog"]


@guest
async def test_a_journal_in_memory_says_so(serve: Serve, tmp_path: Path) -> None:
    """Whoever reads it must know that it ends with the daemon."""
    port = await serve(MemoryJournal())
    _, out, _ = await called(folder=tmp_path, port=port)
    assert out.splitlines() == [
        f"from the daemon at 127.0.0.1:{port}, kept in memory only: COREFLOW_STATE_DIR is not set there",
        "Nothing has been done yet.",
    ]


@guest
async def test_the_file_where_no_daemon_answers(tmp_path: Path) -> None:
    """It is read as it is, and left as it is."""
    state = tmp_path / "state"
    async with open_sqlite_journal(state, Limits(), clock) as journal:
        await fill(journal)
    before = (state / "journal.db").read_bytes()
    status, out, err = await called("--since", "2023-11-14", folder=tmp_path, state=state)
    assert (status, err) == (0, "")
    assert out.startswith(f"from {state}/journal.db (no daemon answers at 127.0.0.1:1: Connection refused)\n")
    assert len(out.splitlines()) == 4
    assert (state / "journal.db").read_bytes() == before
    assert (await called("--since", "30d", folder=tmp_path, state=state))[1].count("\n") == 1


@guest
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "COREFLOW_STATE_DIR is not set: there is no history"),
        (["--limit", "0"], "--limit must be from 1 to 1000"),
        (["--since", "yesterday"], "--since must be such as 90s"),
        (["--follow", "--format", "json"], "use --format jsonl"),
    ],
)
async def test_what_cannot_be_shown(arguments: list[str], text: str, tmp_path: Path) -> None:
    """One line, and status 1."""
    status, _, err = await called(*arguments, folder=tmp_path)
    assert status == 1
    assert text in err
    assert len(err.splitlines()) == 1


@guest
async def test_following(serve: Serve, tmp_path: Path) -> None:
    """Entries come as they are made, until a signal ends it."""
    journal = MemoryJournal()
    await fill(journal)
    port = await serve(journal)
    line = command(tmp_path, "--follow", "--format", "jsonl", "--limit", "1", port=port)
    seen: list[str] = []
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            process = await nursery.start(
                partial(
                    trio.run_process, line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
                )
            )
            text = b""
            async for chunk in process.stdout:
                text += chunk
                seen = [json.loads(one)["name"] for one in text.decode().splitlines() if one.endswith("}")]
                if seen == ["blog"]:
                    entry = evolve(SHOP, name="new")
                    journal.end(journal.begin(entry), ended(entry, "applied", "", NOW))
                if "new" in seen:
                    os.kill(process.pid, signal.SIGTERM)
    assert seen == ["blog", "new"]
    assert process.returncode == 128 + signal.SIGTERM


@pytest.fixture
def lab(engine_host: str, tmp_path: Path) -> Iterator[Lab]:
    """An empty cluster on a real Swarm."""
    yield from open_lab(engine_host, tmp_path, f"h{os.getpid()}x{next(_numbers)}")


@pytest.mark.engine
def test_a_daemon_on_a_real_swarm(lab: Lab) -> None:
    """Who asked, in the daemon's journal; killed, its file has it all; started again, it goes on, and a command beside it, too."""
    state = lab.folder / "state"
    settings: dict[str, Any] = {
        "CLOUDLY_URL": lab.records.as_uri(),
        "COREFLOW_INITIAL_DELAY": "0",
        "COREFLOW_STATE_DIR": str(state),
        "COREFLOW_ADMIN_LISTEN": f"127.0.0.1:{free_port()}",
    }

    def shown() -> tuple[str, list[tuple[str, str, str, list[str]]]]:
        """Where entries come from, and those about services."""
        document = lab.run("history", "--format", "json", **settings).json
        entries = [one for one in document["entries"] if one["kind"] == "service"]
        return document["source"], [
            (one["action"], one["name"].removeprefix(f"{lab.prefix}-"), one["outcome"], one["asked"])
            for one in entries
        ]

    lab.write(lab.service("a"), lab.service("b"))
    daemon = lab.start("run", **settings)
    lab.wait("both run", lambda: lab.running("a") and lab.running("b"))
    lab.write(lab.service("a", NEWER_IMAGE), lab.service("b"))
    lab.wait("the change is followed", lambda: "update" in [one[0] for one in shown()[1]])
    lab.client.remove_service(lab.name("b"))
    lab.wait("it is made again", lambda: [one[0] for one in shown()[1]].count("create") == 3)
    source, entries = shown()
    assert source == f"the daemon at {settings['COREFLOW_ADMIN_LISTEN']}"
    assert all("start" in asked for *_, asked in entries[:2])
    assert entries[2:] == [("update", "a", "applied", ["file"]), ("create", "b", "applied", ["event"])]
    daemon.send_signal(signal.SIGKILL)
    daemon.wait()
    source, after = shown()
    assert source.startswith(f"{state}/journal.db (no daemon answers")
    assert after == entries
    daemon = lab.start("run", **settings)
    lab.wait("it answers", lambda: shown()[0].startswith("the daemon"))
    assert shown()[1] == entries
    lab.write(lab.service("a", NEWER_IMAGE, environment={"N": "1"}), lab.service("b"))
    command = {**settings, "COREFLOW_ADMIN_LISTEN": "127.0.0.1:1"}
    assert lab.run("apply", "--records", str(lab.records), "--timeout", "60", **command).code == 0
    lab.wait("one of both has done it", lambda: len(shown()[1]) > len(entries))
    assert {("update", "a")} == {one[:2] for one in shown()[1][len(entries) :]}
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(timeout=10) == 0
    assert [path.name for path in state.iterdir()] == ["journal.db"]
