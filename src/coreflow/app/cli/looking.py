"""The status of a cluster for a command: as the daemon on this machine tells it or, where none runs, as one look finds it."""

import time
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import trio
from attrs import frozen

from coreflow.adapters.probe import ask_page
from coreflow.app import status_document
from coreflow.app.cli.running import read_settings
from coreflow.app.peers import open_ports
from coreflow.app.reconcile import Reconciler, ReconcilerOptions
from coreflow.app.settings import Settings
from coreflow.app.status import StatusBoard
from coreflow.domain.deploy.result import ReconcileResult
from coreflow.domain.errors import CoreflowError, Refused, Unavailable
from coreflow.domain.status.explain import Explanation
from coreflow.domain.status.model import Status

TIMEOUT = 4.0
"""Seconds to wait for an answer of the daemon."""
T = TypeVar("T", Status, Explanation)


@frozen(kw_only=True)
class Seen:
    """The status, and who told it."""

    status: Status
    by: str


async def see(records: Path | None) -> Seen:
    """Ask the daemon; with records of one's own, or without a daemon, look. Raises what keeps both from it."""
    settings = read_settings(need_records=False)
    if records is None:
        try:
            status = await _asked(settings, "/api/v1/status", Status)
        except Unavailable as exc:
            return await _looked(str(exc), records)
        return Seen(status=status, by=f"by the daemon at {_where(settings)}")
    return await _looked("", records)


async def see_service(name: str, records: Path | None) -> Explanation:
    """The same for everything about one service. Raises Refused: there is none of this name."""
    settings = read_settings(need_records=False)
    if records is None:
        try:
            return await _asked(settings, f"/api/v1/services/{quote(name, safe='')}", Explanation)
        except Refused:
            raise no_such_service(name) from None
        except Unavailable:
            pass
    board = await _board(records)
    found = board.explain(name)
    if found is None:
        if not board.current().services and (problems := board.current().problems):
            raise Unavailable(problems[0].cause)
        raise no_such_service(name)
    return found


def no_such_service(name: str) -> Refused:
    """Say so; `coreflow status` lists all there are."""
    return Refused(f"there is no service {name}: `coreflow status --all` lists them")


async def _asked(settings: Settings, path: str, kind: type[T]) -> T:
    address = settings.admin_listen
    text = await trio.to_thread.run_sync(ask_page, address.host, address.port, path, TIMEOUT)
    return status_document.read(text, kind)


def _where(settings: Settings) -> str:
    return f"{settings.admin_listen.host}:{settings.admin_listen.port}"


async def _looked(why: str, records: Path | None) -> Seen:
    board = await _board(records)
    return Seen(status=board.current(), by=f"by this command ({why})" if why else "by this command")


async def _board(records: Path | None) -> StatusBoard:
    """Look once; nothing is written. What cannot be looked at is a problem of the status."""
    settings = read_settings(need_records=records is None)
    board = StatusBoard(time.time, acts=False)  # noqa: TID251 - the edge
    async with open_ports(settings, records) as ports:
        reconciler = Reconciler(
            ports.cloudly,
            ports.docker,
            ports.corestores,
            render=settings.render_options,
            plan=settings.plan_options,
            options=ReconcilerOptions(
                known=ports.known, settle_seconds=settings.settle_seconds, heard=board.heard
            ),
        )
        try:
            state = await reconciler.look()
        except CoreflowError as exc:
            board.failed(exc)
        else:
            board.reconciled(ReconcileResult(last=state, verdicts=state.verdicts))
    return board
