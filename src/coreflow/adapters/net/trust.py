"""Trust of TLS clients: a file of authorities, read anew for each connection, so that one that was replaced is used."""

import ssl
from pathlib import Path

import trio

from coreflow.domain.errors import Refused, Unavailable
from coreflow.domain.routing.pem import CERTIFICATES, blocks
from coreflow.reading import read_file

READ_SECONDS = 30.0
"""How long the file system may take."""


async def trusting(ca_file: Path | None) -> ssl.SSLContext:
    """Trust those in the file and nobody else; without a file, those that the system trusts.

    Raises Refused for a file that cannot be used, with the reason, and Unavailable where the file system hangs.
    """
    with trio.move_on_after(READ_SECONDS):
        return await trio.to_thread.run_sync(_context, ca_file, abandon_on_cancel=True)
    raise Unavailable(f"{ca_file}: the file system did not answer in {READ_SECONDS:g} s")


def _context(ca_file: Path | None) -> ssl.SSLContext:
    if ca_file is None:
        return ssl.create_default_context()
    try:
        text = read_file(ca_file).decode("utf-8-sig", errors="replace")
    except OSError as exc:
        raise Refused(f"{ca_file}: {exc.strerror}") from None
    found = [block.body for block in blocks(text) if block.label in CERTIFICATES and block.body is not None]
    try:
        if found:
            return ssl.create_default_context(cadata=b"".join(found))
    except ssl.SSLError:
        pass
    raise Refused(f"{ca_file}: not a file of PEM certificates")
