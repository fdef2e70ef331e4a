"""`ControlPlane` and `ReplicaPort` on a Cloudly that is somewhere on the network."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, Unpack

import structlog
import trio
from attrs import frozen

from coreflow.adapters.net.peer import Handler
from coreflow.adapters.net.typedsocket import TimedOut
from coreflow.adapters.tasks import Notices
from coreflow.domain.backup.replication import Copy, Receipt, Slice
from coreflow.domain.errors import (
    CoreflowError,
    InvalidRecord,
    PortError,
    PreconditionFailed,
    Refused,
    Unavailable,
)
from coreflow.domain.platform.bindings import BindingStatus
from coreflow.domain.ports import Operator
from coreflow.domain.records.codec import PROBLEMS_SHOWN
from coreflow.domain.records.converter import decode
from coreflow.domain.records.models import CertificateRecord, Records
from coreflow.domain.swarm.specs import ImageSpec

from .archive import Archive
from .backups import backup_document, backup_request, restore_document, restore_request
from .fetching import Fetcher
from .link import Dial, Link, LinkOptions
from .login import LinkKeywords, with_keywords
from .methods import (
    BACKUP,
    CERTIFICATE,
    METRICS,
    OLD_PUSHES,
    PULL_IMAGE,
    PUSH_CONFIG,
    PUSH_PLATFORM,
    REPORT_BINDING,
    RESTORE,
    SERVER_ACTION,
    Method,
)
from .reporting import LogShipper

log = structlog.get_logger()

STRIKES = 2
"""Fetches in a row that were not answered before the connection is given up."""


@frozen(kw_only=True)
class ImageLimits:
    """Limits on loading an internal image."""

    bytes: int = 10 * 1024**3
    """Size of its archive."""
    seconds: float = 1800.0
    """From the question to the last byte."""
    stall: float = 60.0
    """From one piece to the next."""
    rate: float = 64 * 1024
    """Bytes a second, on the average of that time: a pass waits for an image."""


class NetworkCloudly:
    """Follows one Cloudly. `run` has to run for anything to happen. `learn` is called with the records.

    While Cloudly is away, `records` goes on giving the last ones.
    """

    def __init__(
        self,
        dial: Dial,
        token: str,
        *,
        wall_clock: Callable[[], float],
        options: LinkOptions | None = None,
        image_limits: ImageLimits | None = None,
        learn: Callable[[Records], None] = lambda _: None,
        strict: bool = False,
        **keywords: Unpack[LinkKeywords],
    ) -> None:
        """`keywords` are old names of what `options` has; each warns."""
        self._learn = learn
        self._wall_clock = wall_clock
        self._image_limits = image_limits or ImageLimits()
        self._notices = Notices()
        self._strikes = 0
        self._told_of_actions = False
        self._lock = trio.Lock()
        self._operator: Operator | None = None
        handlers: dict[str, Handler] = {
            PUSH_CONFIG.name: self._pushed,
            PUSH_PLATFORM.name: self._platform_pushed,
            SERVER_ACTION.name: self._server_action,
            METRICS.name: lambda _: {},
            BACKUP.name: self._backup,
            RESTORE.name: self._restore,
            **{method.name: self._old_push for method in OLD_PUSHES},
        }
        self.link = Link(
            dial,
            token,
            handlers=handlers,
            wall_clock=wall_clock,
            on_up=self._came_up,
            options=with_keywords(options or LinkOptions(), keywords),
        )
        self.logs = LogShipper(self.link, token)
        self._fetcher = Fetcher(self.link, strict=strict)
        self._archive = Archive(self.link)

    def serve(self, operator: Operator) -> None:
        """From now on this is who carries out what Cloudly asks for. Without one, it is told that we are not ready.

        When the connection ends, whoever waits for an answer is cancelled: what was begun has to go on elsewhere.
        """
        self._operator = operator

    async def run(self) -> None:
        """Keep the connection up until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.link.run)
            nursery.start_soon(self.logs.run)

    # --- the port

    async def records(self) -> Records:
        """Ask Cloudly for everything. Unchanged answers give the very same object as before.

        While it is away, or answers nothing that can be used, the last records stay in force. Raises what is wrong when
        there have never been any.
        """
        known = self._fetcher.known
        try:
            live = self.link.live if known is not None else await self.link.wait()
            if live is None:
                await trio.lowlevel.checkpoint()
                assert known is not None  # noqa: S101 - else there would be a connection, or an exception
                return known
            async with self._lock:
                records = await self._fetcher.fetch(live)
        except Unavailable as exc:
            self._strike(exc)
            if known is None:
                raise
            log.debug("continuing with the last records", reason=str(exc))
            return known
        self._strikes = 0
        self._learn(records)
        return records

    @asynccontextmanager
    async def archive(self, spec: ImageSpec) -> AsyncIterator[AsyncIterator[bytes]]:
        """The archive of an internal image, as Cloudly streams it.

        Entering raises Refused when there is none, or when this Cloudly cannot deliver streams; reading raises
        Unavailable when the stream breaks, stalls or takes too long, and Refused when it is too large.
        """
        what = f"image {spec.image_id} {spec.version}"
        limits = self._image_limits
        deadline = trio.current_time() + limits.seconds
        await self.link.wait()
        fields = {"imageId": spec.image_id, "versionString": spec.version}
        with _named(what):
            peer, stream = await self.link.call_for_stream(PULL_IMAGE, fields)

        async def take() -> bytes | None:
            seconds = min(limits.stall, deadline - trio.current_time())
            with _named(what), trio.move_on_after(max(seconds, 0.0)):
                return await peer.take(stream)
            if trio.current_time() >= deadline:
                raise Unavailable(f"{what}: its archive did not arrive in {limits.seconds:g} s")
            raise Unavailable(f"{what}: nothing of its archive arrived for {limits.stall:g} s")

        async def pieces(piece: bytes | None) -> AsyncGenerator[bytes, None]:
            size = arrived = 0
            since = trio.current_time()
            while piece is not None:
                size, arrived = size + len(piece), arrived + len(piece)
                elapsed = trio.current_time() - since
                if elapsed >= limits.stall:
                    if arrived < limits.rate * elapsed:
                        raise Unavailable(
                            f"{what}: its archive arrives with less than {limits.rate:g} bytes a second"
                        )
                    arrived, since = 0, trio.current_time()
                if size > limits.bytes:
                    raise Refused(f"{what}: its archive is larger than {limits.bytes} bytes")
                yield piece
                piece = await take()

        try:
            first = await take()  # a peer that cannot deliver is found out before anything is begun
            if first is None:
                raise Refused(f"{what}: its archive is empty")
            async with aclosing(pieces(first)) as chunks:
                yield chunks
        finally:
            peer.give_up(stream)

    async def certificate(self, domain: str) -> CertificateRecord:
        """Ask for the certificate of a domain. Raises Refused when there is none, InvalidRecord when it is none."""
        await self.link.wait()
        with _named(f"certificate of {domain}"):
            answer = await self.link.call(CERTIFICATE, {"domainName": domain, "type": "ssl"})
        raw = answer.get(CERTIFICATE.answer or "")
        if raw is None:
            raise Refused(f"certificate of {domain}: Cloudly has none")
        return decode(raw, CertificateRecord, f"$.{CERTIFICATE.answer}")

    async def report_binding(self, status: BindingStatus) -> None:
        """Tell Cloudly. Raises Refused where it has no such method."""
        body = status_document(status, int(self._wall_clock() * 1000))
        await self.link.call(
            REPORT_BINDING, {"bindingId": status.binding.id, "status": body}, needs_result=False
        )

    @asynccontextmanager
    async def changes(self) -> AsyncIterator[AsyncIterator[None]]:
        """Yields when Cloudly pushed something, or is connected (again), since this was entered or last yielded."""
        await trio.lowlevel.checkpoint()
        async with self._notices.follow() as notices:
            yield notices

    async def copies(self, *, backup_id: str = "", prefix: str = "") -> tuple[Copy, ...]:
        """The copies that Cloudly keeps, without those that it does not describe in full. Away is Unavailable."""
        return await self._archive.copies(backup_id=backup_id, prefix=prefix)

    async def put_slice(
        self, copy: Copy, offset: int, data: bytes, *, final: bool, backup_id: str = ""
    ) -> Receipt:
        """Hand over a piece of a copy, once. Away is Unavailable."""
        return await self._archive.put_slice(copy, offset, data, final=final, backup_id=backup_id)

    async def get_slice(self, name: str, offset: int, max_bytes: int) -> Slice:
        """A piece of a copy. Raises Refused when there is none, or when what comes cannot be it. Away is Unavailable."""
        return await self._archive.get_slice(name, offset, max_bytes)

    # --- what Cloudly says by itself

    def _pushed(self, body: Mapping[str, Any]) -> Mapping[str, object]:
        self._fetcher.push(body)
        self._notices.notify()
        return {}

    def _platform_pushed(self, body: Mapping[str, Any]) -> Mapping[str, object]:
        self._fetcher.push_platform(body.get(PUSH_PLATFORM.key or ""))
        self._notices.notify()
        return {}

    def _old_push(self, _: Mapping[str, Any]) -> Mapping[str, object]:
        self._notices.notify()
        return {}

    def _server_action(self, _: Mapping[str, Any]) -> Mapping[str, object]:
        if not self._told_of_actions:
            log.info("server action refused", reason="coreflow does not manage the host")
        self._told_of_actions = True
        return {SERVER_ACTION.answer or "": False}

    async def _backup(self, body: Mapping[str, Any]) -> Mapping[str, object]:
        operator = self._require_operator()
        with _bad_request(BACKUP):
            request = backup_request(body)
        return {BACKUP.answer or "": backup_document(await operator.backup(request))}

    async def _restore(self, body: Mapping[str, Any]) -> Mapping[str, object]:
        operator = self._require_operator()
        with _bad_request(RESTORE):
            request = restore_request(body, self._capability_of)
        return {RESTORE.answer or "": restore_document(await operator.restore(request))}

    def _require_operator(self) -> Operator:
        if self._operator is None:
            raise PreconditionFailed("coreflow is not ready for backups yet")
        return self._operator

    def _capability_of(self, binding_id: str) -> str | None:
        known = self._fetcher.known
        bindings = () if known is None or known.platform is None else known.platform.bindings
        return next((record.capability for record in bindings if record.id == binding_id), None)

    def _came_up(self) -> None:
        self._strikes = 0
        self._told_of_actions = False
        self._fetcher.forget_pushes()
        self._notices.notify()

    def _strike(self, exc: CoreflowError) -> None:
        """A peer that answers pings and nothing else is no use: a new connection may be."""
        self._strikes = self._strikes + 1 if isinstance(exc, TimedOut) else 0
        if self._strikes >= STRIKES:
            self._strikes = 0
            self.link.drop("Cloudly does not answer requests")


def status_document(status: BindingStatus, now_ms: int) -> dict[str, object]:
    """A status as Cloudly gets it (`IPlatformBindingStatus`, proposed): where the credentials are, never what they are."""
    document: dict[str, object] = {
        "serviceId": status.binding.service_id,
        "capability": status.binding.capability,
        "provider": "corestore",
        "status": status.state,
        "updatedAt": now_ms,
    }
    if status.endpoints:
        document["endpoints"] = [
            {"name": e.name, "protocol": e.protocol, "host": e.host, "port": e.port} for e in status.endpoints
        ]
    if status.secret:
        reference = {"type": "dockerSecret", "name": status.secret, "file": "secret.json"}
        document["credentials"] = [{**reference, "keys": list(status.keys)}]
    if status.error:
        document["errorText"] = status.error
    return document


@contextmanager
def _bad_request(method: Method) -> Iterator[None]:
    """Tell Cloudly what is wrong with its request."""
    try:
        yield
    except InvalidRecord as exc:
        shown = InvalidRecord(*exc.problems[:PROBLEMS_SHOWN])
        raise PreconditionFailed(f"{method.name}: {shown}") from None


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Put the name of what was wanted before the text of an error of the port."""
    try:
        yield
    except PortError as exc:
        renamed = Refused if isinstance(exc, Refused) else Unavailable
        raise renamed(f"{what}: {exc}") from exc
