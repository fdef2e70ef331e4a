"""Copies of archive objects at Cloudly: `ReplicaPort` in slices, inside of ordinary messages.

Nothing is tried again here: whoever hands over slices knows how long it is worth trying, and where to go on. So while
there is no connection, for whatever reason, everything is Unavailable at once.

What Cloudly says about copies is taken with care, since a backup depends on it: a copy that is not described in a way
that can be checked counts as not there, and one counts as stored only if all its bytes have arrived.
"""

import binascii
import re
from collections.abc import Mapping
from typing import Any

from coreflow.domain.backup.replication import SLICE_BYTES, Copy, Receipt, Slice, digest_in
from coreflow.domain.errors import InvalidRecord, Refused, Unavailable

from . import methods as m
from .link import Link, NotOffered, TokenRefused

SLICE_SECONDS = 120.0
"""How long a slice may take: the line may be slow, and peers send with their answer what they were asked."""
COPIES_LIMIT = 1_000_000
PAGES_LIMIT = 100_000
"""Of one list; a peer that has more is not in its right mind."""
_CURSOR_LIMIT = 10_000
_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{64})", re.IGNORECASE)


class Archive:
    """The copies that a Cloudly keeps for us."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def copies(self, *, backup_id: str = "", prefix: str = "") -> tuple[Copy, ...]:
        """The copies that there are, page after page. Raises Refused when the pages have no end."""
        query = {m.BACKUP_ID.name: backup_id, m.PREFIX.name: prefix}
        fields = {name: text for name, text in query.items() if text}
        found: dict[str, Copy] = {}
        cursors: set[object] = set()
        while True:
            answer = await self._ask(m.LIST_ARCHIVE, fields)
            for copy in _copies_in(answer):
                if copy.name.startswith(prefix):
                    found.setdefault(copy.name, copy)
            cursor = m.NEXT_CURSOR.of(answer)
            if cursor is None or cursor == "":
                return tuple(found.values())
            if not _is_cursor(cursor):
                raise Refused(f"{m.LIST_ARCHIVE.name}: `{m.NEXT_CURSOR.name}` cannot be used")
            if cursor in cursors:
                raise Refused(f"{m.LIST_ARCHIVE.name}: Cloudly gives out the same page again and again")
            if len(cursors) >= PAGES_LIMIT or len(found) > COPIES_LIMIT:
                raise Refused(f"{m.LIST_ARCHIVE.name}: Cloudly's list has no end")
            cursors.add(cursor)
            fields[m.CURSOR.name] = cursor

    async def put_slice(
        self, copy: Copy, offset: int, data: bytes, *, final: bool, backup_id: str = ""
    ) -> Receipt:
        """Hand over a piece of a copy, at most `SLICE_BYTES`."""
        if len(data) > SLICE_BYTES:
            raise ValueError(f"a slice has {SLICE_BYTES} bytes at most")
        fields: dict[str, object] = {
            m.OBJECT_ID.name: copy.name,
            m.DIGEST.name: copy.sha256,
            m.SIZE.name: copy.size,
            m.OFFSET.name: offset,
            m.FINAL.name: final,
            m.DATA.name: binascii.b2a_base64(data, newline=False).decode(),
        }
        if backup_id:
            fields[m.BACKUP_ID.name] = backup_id
        answer = await self._ask(m.PUT_ARCHIVE, fields)
        return _receipt_in(answer, copy, offset + len(data), final=final)

    async def get_slice(self, name: str, offset: int, max_bytes: int) -> Slice:
        """A piece of a copy. Raises Refused when there is none of this name, or when what comes cannot be it."""
        fields: dict[str, object] = {
            m.OBJECT_ID.name: name,
            m.OFFSET.name: offset,
            m.MAX_BYTES.name: max_bytes,
        }
        return _slice_in(await self._ask(m.GET_ARCHIVE, fields), offset, max_bytes)

    async def _ask(self, method: m.Method, fields: Mapping[str, object]) -> Mapping[str, Any]:
        """Ask, if there is a connection. Raises nothing but Unavailable and Refused."""
        try:
            await self._link.wait()
        except Refused as exc:  # of the connection; what was asked for is not refused
            raise Unavailable(str(exc)) from None
        try:
            return await self._link.call(method, fields, timeout=SLICE_SECONDS)
        except NotOffered:
            raise Refused(f"Cloudly keeps no archives (it has no {method.name})") from None
        except TokenRefused as exc:
            raise Unavailable(str(exc)) from None
        except InvalidRecord as exc:
            raise Refused(str(exc)) from None


def _copies_in(answer: Mapping[str, Any]) -> list[Copy]:
    """The copies on a page, without those that are not described in full."""
    entries = m.OBJECTS.of(answer)
    if not isinstance(entries, list):
        raise Refused(f"{m.LIST_ARCHIVE.name} was answered without a list")
    found = []
    for entry in entries:
        name, size = m.OBJECT_ID.of(entry), _whole(m.SIZE.of(entry))
        digest = _digest(m.DIGEST.of(entry), name)
        if isinstance(name, str) and name and size is not None and digest is not None:
            found.append(Copy(name=name, size=size, sha256=digest))
    return found


def _receipt_in(answer: Mapping[str, Any], copy: Copy, end: int, *, final: bool) -> Receipt:
    """Return what became of a slice that went up to `end`.

    Where it is not said whether the copy is stored, it is if all of it was received, as the answer to the last slice
    says in so many words.
    """
    said = m.RECEIVED.of(answer)
    received = end if said is None else _whole(said)
    if received is None or received > copy.size:
        raise Unavailable(f"{m.PUT_ARCHIVE.name}: Cloudly says that it received what cannot be")
    stored = m.STORED.of(answer)
    if stored is None:
        stored = final and said is not None
    return Receipt(received=received, stored=stored is True and received == copy.size)


def _slice_in(answer: Mapping[str, Any], offset: int, max_bytes: int) -> Slice:
    """A piece that starts at `offset`. The last one is that which reaches the end, whatever the answer calls it."""
    what = m.GET_ARCHIVE.name
    text = m.DATA.of(answer)
    if not isinstance(text, str):
        raise Refused(f"{what} was answered without data")
    if len(text) > 4 * (max_bytes // 3 + 1):
        raise Refused(f"{what}: Cloudly sends more than it was asked for")
    try:
        data = binascii.a2b_base64(text.encode(), strict_mode=True)
    except ValueError:  # binascii.Error is one
        raise Refused(f"{what}: the data are not base64") from None
    if len(data) > max_bytes:
        raise Refused(f"{what}: Cloudly sends more than it was asked for")
    end = offset + len(data)
    final = m.FINAL.of(answer)
    size = _whole(m.SIZE.of(answer))
    if size is None:
        if final is not True:
            raise Refused(f"{what} was answered without a size")
        size = end
    if end > size:
        raise Refused(f"{what}: Cloudly sends more than there is")
    if end < size and (final is True or not data):
        raise Refused(f"{what}: what Cloudly has ends too early")
    return Slice(data=data, size=size, final=end == size)


def _whole(value: object) -> int | None:
    """A number of bytes, as JavaScript may write it."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _digest(value: object, name: object) -> str | None:
    """The digest that a copy has or, where none is told, that its name ends with: what arrives is compared with it."""
    if value is None and isinstance(name, str):
        return digest_in(name)
    found = _DIGEST.fullmatch(value) if isinstance(value, str) else None
    return found[1].lower() if found else None


def _is_cursor(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= _CURSOR_LIMIT
    return isinstance(value, int) and not isinstance(value, bool)
