"""`coreflow status` and `coreflow explain` as a person sees them."""

import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from attrs import evolve
from rich.console import Console
from tests.unit.app.test_cli import Called, call
from tests.unit.app.worlds import BAD, World, cluster, play, service
from tests.unit.domain.examples import desired, live, observed, result, spec, state, task

from coreflow.adapters.swarm.port import SwarmPort
from coreflow.app.cli import COMMANDS, explain, looking, status
from coreflow.app.cli.looking import Seen
from coreflow.app.cli.running import Format
from coreflow.app.peers import Ports
from coreflow.domain.errors import Refused
from coreflow.domain.routing.certificate import Certificate
from coreflow.domain.routing.routes import Destination, HostClaim, Missing, Route, RouteTable
from coreflow.domain.status.connections import Connection
from coreflow.domain.status.explain import Explanation
from coreflow.domain.status.explain import explain as explanation_of
from coreflow.domain.status.make import make_status
from coreflow.domain.status.model import BindingState, CurrentProblem, Status
from coreflow.domain.status.parts import Facts, OperationStatus
from coreflow.domain.swarm.convergence import Verdict

__all__ = ["call"]  # a fixture
NOW = 100_000.0
CERTIFICATE = Certificate(
    chain="", key="", names=("a.example",), issuer="CA", not_before=0.0, not_after=NOW + 10 * 86_400
)


def facts() -> Facts:
    """One service that runs, one in a crash loop, one that rolls out, hosts, and an operation."""
    wanted = desired(spec("web"), spec("bad"), spec("new"))
    rolling = live(spec("new"), update_state="updating", previous_image="app:0")
    there = (live(spec("web")), live(spec("bad"), by_hand={"replicas": 2}), rolling)
    failed = task(there[1], state="failed", desired_state="shutdown", error="task: non-zero exit (1)")
    seen = observed(*there, tasks=(failed, task(there[1], 2)), time=NOW)
    loop = Verdict(
        service="bad",
        running=0,
        wanted=1,
        detail="crash-looping: exits",
        has_error=True,
        crashes=7,
        crashing_since=NOW - 180,
        error="exits",
    )
    verdicts = (
        Verdict(service="web", running=1, wanted=1, done=True),
        loop,
        Verdict(service="new", running=1, wanted=2),
    )
    route = Route(
        host="a.example",
        service="bad",
        port=80,
        destinations=(Destination(address="10.0.0.2", task_id="t", node_id=None),),
        certificate=CERTIFICATE,
    )
    table = RouteTable(
        routes=(route,),
        missing=(Missing(host="b.example", service="bad", reason="no task runs yet", is_dead=True),),
        claims=(HostClaim(host="a.example", service="bad", port=80),),
    )
    return Facts(
        now=NOW,
        looked=NOW - 3,
        result=result(last=state(wanted=wanted, observed=seen), verdicts=verdicts),
        table=table,
        connections=(
            Connection(peer="engine", is_up=True, since=NOW - 7200, checked=NOW),
            Connection(peer="coretraffic", where="n1", is_up=True, since=NOW - 60, checked=NOW),
        ),
        operations=(
            OperationStatus(
                kind="backup", service_id="id-bad", backup_id="b1", state="completed", since=NOW - 7200
            ),
        ),
    )


def printed(show: Callable[[Console], object]) -> str:
    """What a person sees, without a terminal."""
    console = Console(file=io.StringIO(), width=200)
    show(console)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_a_screen_has_problems_first() -> None:
    """Then what is under way, then numbers; what is as desired only where somebody asks."""
    found, _ = make_status(facts())
    lines = [line.rstrip() for line in printed(lambda c: status.show(c, found, "by the daemon")).splitlines()]
    assert lines[0] == "cluster · 3 services · degraded · checked 3 s ago by the daemon"
    assert lines[2] == "1 problem"
    assert lines[3].split() == [
        "✗",
        "crash-looping",
        "bad",
        "ended",
        "7",
        "times,",
        "last:",
        "exits",
        "(since",
        "3",
        "min)",
    ]
    assert lines[4].split()[:4] == ["→", "`docker", "service", "logs"]
    assert lines[6] == "under way"
    assert lines[7].split() == [
        "~",
        "rolling",
        "out",
        "new",
        "1",
        "of",
        "2:",
        "image",
        "app:0",
        "→",
        "app:1",
        "(since",
        "0",
        "s)",
    ]
    assert lines[9] == "1 as desired, 1 crash-looping, 1 rolling out · routes 1 of 2"
    assert lines[10] == "engine up 2 h · coretraffic n1 up 60 s"
    assert lines[11] == "backup of id-bad completed 2 h ago"
    everything = printed(lambda c: status.show(c, found, "by the daemon", everything=True))
    assert "✓ as desired     web  1 of 1 running; app:1" in everything


def test_an_unknown_cluster_says_so() -> None:
    away = Connection(peer="engine", is_up=False, since=NOW - 30, checked=NOW, fault="away", error="gone")
    found, _ = make_status(evolve(facts(), connections=(away,)))
    text = printed(lambda c: status.show(c, found, "by the daemon"))
    assert text.startswith("cluster · 3 services · unknown · checked 3 s ago")
    assert "✗ away  engine  gone (since 30 s)" in text
    assert "3 unknown" in text
    assert "engine down 30 s" in text
    never, _ = make_status(Facts(now=NOW))
    assert "never checked" in printed(lambda c: status.show(c, never, "by nobody"))


def test_a_problem_of_many_names_them() -> None:
    problem = CurrentProblem(
        kind="held", subjects=("a", "b"), cause="r answers 503", since=NOW, next_step="wait"
    )
    found = Status(verdict="degraded", time=NOW, problems=(problem,))
    lines = printed(lambda c: status.show(c, found, "by a test")).splitlines()
    assert "✗ held  2 services  r answers 503 (since 0 s)" in lines[3]
    assert lines[4].strip() == "a, b"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7199, "120 min"),
        (7200, "2 h"),
        (200_000, "2 days"),
    ],
)
def test_ages(seconds: float, text: str) -> None:
    assert status.ago(NOW, NOW - seconds) == text


def explained(name: str) -> Explanation:
    """One of the services."""
    given = facts()
    found = explanation_of(given, make_status(given)[0], name)
    assert found is not None
    return found


def test_an_explanation_goes_from_record_to_tasks() -> None:
    """Only what differs of the live service is shown, and routes with their certificates."""
    found = evolve(
        explained("bad"),
        written=NOW - 60,
        bindings=(BindingState(id="b1", service="id-bad", capability="database", state="failed", error="e"),),
    )
    text = printed(lambda c: explain.show(c, found))
    assert text.splitlines()[0] == "bad · crash-looping · checked 3 s ago"
    for part in (
        "id-bad: rendered",
        "image app:1; digest sha256:aa",
        "replicas 2; fingerprint v1:",
        "(written 60 s ago)",
        "changed by hand: replicas 2, wanted 1",
        "written by the next pass",
        "no node",
        "exits: task: non-zero exit (1)",
        "1 task at port 80; certificate of CA for 10 days",
        "no task runs yet",
        "b1 failed: e",
        "b1 completed 2 h ago",
    ):
        assert part in text, text
    assert "the same" in printed(lambda c: explain.show(c, explained("web")))
    gone = evolve(explained("web"), live=None, spec=None)
    text = printed(lambda c: explain.show(c, gone))
    assert "it is not in the Swarm" in text


def test_both_commands_are_listed() -> None:
    assert {"status", "explain"} <= COMMANDS.keys()


def test_without_a_daemon_and_an_engine_a_command_says_what_is_away(call: Called) -> None:
    """As a problem of the status: nothing else can be known."""
    environ = {"DOCKER_HOST": "unix:///nowhere/docker.sock", "COREFLOW_ADMIN_LISTEN": "127.0.0.1:9"}
    environ["CLOUDLY_URL"] = "file:///nowhere/cluster.yaml"
    done = call("status", **environ)
    assert done.returncode == 1
    assert (
        "unknown · never checked by this command (no daemon answers at 127.0.0.1:9: Connection refused)"
        in done.stdout
    )
    assert "records" in done.stdout
    document = call("status", "--format", "json", **environ)
    assert json.loads(document.stdout)["verdict"] == "unknown"
    one = call("explain", "web", **environ)
    assert (one.returncode, one.stdout) == (1, "")
    assert one.stderr.startswith("error: ")
    assert call("status", "web", **environ).stderr.startswith("error: there is no service web")


class Seeing:
    """Statuses one after the other, and then Ctrl-C."""

    def __init__(self, *statuses: Status) -> None:
        self.rest = [*statuses]

    async def see(self, _: object) -> Seen:
        if not self.rest:
            raise KeyboardInterrupt
        return Seen(status=self.rest.pop(0), by="by a test")


def test_watching_shows_it_again_only_when_it_changes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other times alone are no change."""
    found, _ = make_status(facts())
    seeing = Seeing(found, evolve(found, time=NOW + 2), evolve(found, problems=()))

    monkeypatch.setattr(status, "see", seeing.see)
    monkeypatch.setattr(status, "WATCH_SECONDS", 0.0)
    assert status.status(watch=True, format=Format.JSON) == 130
    shown = capsys.readouterr().out
    assert shown.count('"verdict"') == 2


def test_looking_by_itself_on_a_swarm_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written, and what nobody carries out is a problem with a command as the next step."""

    async def scene() -> tuple[Seen, Explanation]:
        world = World()
        world.cloudly.set(cluster(service("a"), service("bad", BAD)))

        @asynccontextmanager
        async def opened(*_: object) -> AsyncIterator[Ports]:
            yield Ports(cloudly=world.cloudly, docker=SwarmPort(world.engine))

        monkeypatch.setattr(looking, "open_ports", opened)
        monkeypatch.setenv("CLOUDLY_URL", "file:///cluster.yaml")
        monkeypatch.setenv("COREFLOW_ADMIN_LISTEN", "127.0.0.1:9")
        monkeypatch.setenv("COREFLOW_BASE_SERVICES", "")
        before = await looking.see(None)
        assert await world.names() == []
        await world.reconciler().deploy(timeout=30)
        with pytest.raises(Refused, match="there is no service nobody"):
            await looking.see_service("nobody", None)
        return before, await looking.see_service("bad", None)

    before, bad = play(scene)
    assert [(p.kind, p.subjects) for p in before.status.problems] == [("missing", ("a", "bad"))]
    assert before.status.problems[0].next_step == "`coreflow apply` makes it"
    assert bad.service.state == "crash-looping"
