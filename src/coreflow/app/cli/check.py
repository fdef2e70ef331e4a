"""`coreflow check`."""

import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from attrs import frozen
from rich.console import Console
from rich.text import Text

from coreflow.app.cli import present
from coreflow.app.cli.deploy import NO_BASE, Output, write_json
from coreflow.app.cli.running import (
    ENGINE_AWAY,
    NO_RECORDS,
    Format,
    Records,
    Strict,
    problems_of,
    run,
    strictly,
    warn,
)
from coreflow.app.cli.verbosity import is_quiet, is_verbose
from coreflow.app.confidential import Confidential
from coreflow.app.peers import new_confidential, open_cloudly, open_docker
from coreflow.app.settings import InvalidSetting, Settings, load_settings
from coreflow.app.streams import console_for
from coreflow.app.telling import told
from coreflow.domain.deploy.desired import RenderOptions
from coreflow.domain.deploy.located import located, located_notes
from coreflow.domain.deploy.plan import make_plan
from coreflow.domain.deploy.render import Renderer
from coreflow.domain.deploy.steps import Plan, PlanOptions
from coreflow.domain.errors import CoreflowError, PortError
from coreflow.domain.ports import ControlPlane, DockerPort
from coreflow.domain.records.models import Records as Recorded
from coreflow.domain.swarm.images import ImageRequest, ResolvedImage
from coreflow.domain.swarm.observed import Observed

OLDEST_API = (1, 41)
"""Docker Engine 20.10: the oldest that coreflow is tested with."""
ASK_AT_ONCE = 8
DIGEST_SHOWN = 19
NOBODYS = frozenset({"default", "not set"})
"""Sources of settings that nobody made."""
Json = dict[str, Any]
_SETTINGS_HINT = "docs/settings.md describes every setting"


@frozen(kw_only=True)
class Finding:
    """One thing that was looked at."""

    ok: bool
    what: str
    name: str
    text: str
    hint: str = ""
    is_note: bool = False
    """Nothing is wrong, but somebody may have meant something else."""
    unit: str = ""
    """Id of the record of a service that it is about."""


Tell = Callable[[Finding], None]


def check(
    records: Records = None,
    *,
    strict: Strict = False,
    format: Output = Format.TEXT,  # noqa: A002 - the option's name
) -> int:
    """Check the settings, the engine, the records and the images' registries. Writes nothing.

    Shows the settings that somebody made, with --verbose all of them. Exit status: 0 if all is well, else 1.
    """
    console = console_for()
    found: list[Finding] = []

    async def command() -> int:
        settings = _settings(os.environ, records, found.append)
        if settings is not None:
            settings = strictly(settings) if strict else settings
            if format is Format.TEXT and not is_quiet():
                print_settings(console, settings, every=is_verbose())
            known = new_confidential(settings)
            async with (
                open_docker(settings, known) as docker,
                _cloudly(settings, known, records, found.append) as cloudly,
            ):
                await examine(
                    cloudly,
                    docker,
                    settings.engine_name,
                    settings.render_options,
                    found.append,
                    settings.plan_options,
                )
        if format is Format.JSON:
            write_json(check_json(settings, found))
        else:
            print_findings(console, found, failures_only=is_quiet())
        return 0 if all(finding.ok for finding in found) else 1

    return run(command, format)


def _settings(environ: Mapping[str, str], records: Path | None, tell: Tell) -> Settings | None:
    """The settings; without those that only the records need, if these are wrong."""
    try:
        load_settings(environ, require_cloudly=records is None)
    except InvalidSetting as exc:
        for problem in exc.problems:
            name, _, text = problem.partition(" ")
            hint = NO_RECORDS if text.startswith("is missing") else _SETTINGS_HINT
            tell(Finding(ok=False, what="setting", name=name, text=text, hint=hint))
    try:
        settings = load_settings(environ, require_cloudly=False)
    except InvalidSetting as exc:
        warn(exc.warnings)
        return None
    warn(settings.warnings)
    return settings


@asynccontextmanager
async def _cloudly(
    settings: Settings, known: Confidential, records: Path | None, tell: Tell
) -> AsyncIterator[ControlPlane | None]:
    if records is None and (
        settings.cloudly_url is None or (settings.needs_network and not settings.jumpcode)
    ):
        yield None  # told already
        return
    async with AsyncExitStack() as stack:
        cloudly = None
        try:
            cloudly = await stack.enter_async_context(open_cloudly(settings, known, records))
        except CoreflowError as exc:
            tell(Finding(ok=False, what="records", name="", text=str(exc), hint=NO_RECORDS))
        yield cloudly


async def examine(
    cloudly: ControlPlane | None,
    docker: DockerPort,
    host: str,
    render: RenderOptions,
    tell: Tell,
    options: PlanOptions | None = None,
) -> None:
    """Look at the records, the engine at `host`, and every image that the records name; then plan, as `plan` would."""
    renderer = Renderer(render)
    records = await _records(cloudly, tell) if cloudly is not None else None
    later: list[Finding] = []
    observed = await _engine(docker, host, later.append)
    if records is not None:
        requests = renderer.image_requests(records, Observed(), refresh=True)
        base = frozenset(request for _, request in renderer.base_requests(records))
        answers = await _images(requests, base, docker, later.append) if observed is not None else {}
        # an image that cannot be found is told as such, and must not hide what else is wrong with its service
        images = {request: answers.get(request, ResolvedImage()) for request in requests}
        desired = renderer.render(records, observed or Observed(), images, refresh=True)
        # without an engine there is nothing to plan against
        plan = (
            make_plan(desired, observed, options)
            if observed is not None
            else Plan(rejections=desired.rejections, notes=desired.notes)
        )
        for finding in _planned(plan, records):
            tell(finding)
    for finding in later:
        tell(finding)


def _planned(plan: Plan, records: Recorded) -> Iterator[Finding]:
    """Yield what keeps records from being deployed, and what is noteworthy about them."""
    for rejection in located(plan.rejections, records):
        for reason in rejection.reasons:
            name = f"service {rejection.name}"
            yield Finding(ok=False, what="record", name=name, text=reason, unit=rejection.unit)
    told_already = {"; ".join(one.reasons) for one in records.rejected if one.kind != "service"}
    for note in located_notes(plan.notes, records):
        if note.text not in told_already:
            name, unit = note.name, note.unit
            yield Finding(ok=True, is_note=True, what="record", name=name, text=note.text, unit=unit)
    if plan.refusal is not None:
        text = f"{plan.refusal}; `coreflow plan` says how to confirm it"
        yield Finding(ok=True, is_note=True, what="removal", name="", text=text)


async def _records(cloudly: ControlPlane, tell: Tell) -> Recorded | None:
    try:
        records = await cloudly.records()
    except CoreflowError as exc:
        for problem in problems_of(exc):
            tell(Finding(ok=False, what="records", name="", text=problem))
        return None
    count = len(records.services)
    text = f"{count} service record{'' if count == 1 else 's'}"
    tell(Finding(ok=True, what="records", name=f"cluster {records.cluster.id}", text=text))
    for rejected in records.rejected:
        if rejected.kind == "service":
            continue  # the plan says more of it
        name = f"{rejected.kind} {rejected.name or rejected.id or '(without a name)'}"
        for reason in rejected.reasons:
            tell(Finding(ok=False, what="record", name=name, text=reason))
    return records


async def _engine(docker: DockerPort, host: str, tell: Tell) -> Observed | None:
    """Look whether the engine answers, is new enough, and is a manager; return what runs there."""
    try:
        version, api = await docker.version()
    except PortError as exc:
        tell(Finding(ok=False, what="engine", name=host, text=str(exc), hint=ENGINE_AWAY))
        return None
    tell(Finding(ok=True, what="engine", name=host, text=f"version {version}"))
    oldest = ".".join(map(str, OLDEST_API))
    enough = tuple(int(part) for part in api.split(".") if part.isdigit()) >= OLDEST_API
    text = f"{oldest} or newer is needed" + ("" if enough else " (Docker Engine 20.10)")
    tell(Finding(ok=enough, what="API", name=api, text=text))
    try:
        observed = await docker.observe()
    except PortError as exc:
        tell(Finding(ok=False, what="manager", name=host, text=str(exc)))
        return None
    count = len(observed.nodes)
    nodes = f"{count} node{'' if count == 1 else 's'}"
    tell(Finding(ok=True, what="manager", name=nodes, text="this engine manages them"))
    return observed


async def _images(
    requests: tuple[ImageRequest, ...], base: frozenset[ImageRequest], docker: DockerPort, tell: Tell
) -> Mapping[ImageRequest, ResolvedImage]:
    """Ask for every image, several at once; reported in the order of their names. Return those that were found.

    Those for `base` services have a hint: somebody may not have meant to deploy these.
    """
    limiter = trio.CapacityLimiter(ASK_AT_ONCE)
    found: dict[ImageRequest, ResolvedImage] = {}
    answers: dict[ImageRequest, Finding] = {}

    async def ask(request: ImageRequest) -> None:
        async with limiter:
            try:
                found[request] = await docker.resolve(request)
            except PortError as exc:
                ok, text = False, str(exc).removeprefix(f"image {request.reference}: ")
            else:
                digest = found[request].digest
                ok, text = True, digest[:DIGEST_SHOWN] if digest else "given with its digest, or only here"
        hint = NO_BASE if request in base and not ok else ""
        answers[request] = Finding(ok=ok, what="image", name=request.reference, text=text, hint=hint)

    async with trio.open_nursery() as nursery:
        for request in requests:
            nursery.start_soon(ask, request)
    for request in requests:
        tell(answers[request])
    return found


def check_json(settings: Settings | None, findings: list[Finding]) -> Json:
    """Return the findings and every setting as documented in docs/commands.md; of a secret only whether it is set."""
    rows = settings.describe() if settings is not None else ()
    return {
        "settings": [
            {
                "name": row.name,
                "value": None if row.source == "not set" else row.value,
                "source": row.source,
            }
            for row in rows
        ],
        "checks": [
            {
                "ok": finding.ok,
                "note": finding.is_note,
                "what": finding.what,
                "name": finding.name,
                "text": told(finding.text),
                "hint": finding.hint or None,
            }
            for finding in findings
        ],
        "ok": all(finding.ok for finding in findings),
    }


def print_settings(console: Console, settings: Settings, *, every: bool = True) -> None:
    """Every setting, its value unless that is secret, and where it came from; what nobody set is dimmed, or left out."""
    described = settings.describe()
    rows = tuple(
        present.Row(
            mark=("", ""),
            kind=row.name,
            name="",
            reason=row.source if row.source == "not set" else f"{row.value}  {row.source}",
            dimmed=row.source in NOBODYS,
        )
        for row in described
        if every or row.source not in NOBODYS
    )
    if len(rows) < len(described):
        rest = len(described) - len(rows)
        text = f"{rest} as they are by default: -v shows them"
        rows = (*rows, present.Row(mark=("", ""), kind="", name="", reason=text, dimmed=True))
    present.print_blocks(console, [present.Block("settings", rows)], indent=0)


def _failures(findings: list[Finding]) -> Iterator[Finding]:
    """Yield what failed, and the notes that may say why."""
    units = {finding.unit for finding in findings if not finding.ok and finding.what == "record"}
    for finding in findings:
        if not finding.ok or (finding.is_note and units and finding.unit in {"", *units}):
            yield finding


def print_findings(console: Console, findings: list[Finding], *, failures_only: bool = False) -> None:
    """Print what was looked at, and how many of it failed. Notes that may say why go with failures."""
    rows: list[present.Row] = []
    for finding in _failures(findings) if failures_only else findings:
        mark = ("ok", "green") if finding.ok else ("failed", "bold red")
        mark = ("note", "yellow") if finding.is_note else mark
        rows.append(present.Row(mark=mark, kind=finding.what, name=finding.name, reason=finding.text))
        if finding.hint:
            hint = f"hint: {finding.hint}"
            rows.append(present.Row(mark=("", ""), kind="", name="", reason=hint, dimmed=True))
    present.print_blocks(console, [present.Block("checks", tuple(rows))] if rows else [], indent=0)
    failed = sum(not finding.ok for finding in findings)
    text = Text(f"{failed} of {len(findings)} failed", style="bold red")
    present.print_line(console, (text if failed else Text("All is well", style="bold green")).append("."))
