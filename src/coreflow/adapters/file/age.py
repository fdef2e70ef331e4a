"""Files that are encrypted with age (https://age-encryption.org), opened in memory.

`pyrage` does the work; it comes with the extra `age`. Another tool of this kind would get a module beside
this one, and a suffix of its own in `sources`.
"""

import importlib
from pathlib import Path
from typing import Any

from attrs import field, frozen

from coreflow.reading import read_file

SUFFIX = ".age"
_NATIVE = "AGE-SECRET-KEY-1"
_SSH = "-----BEGIN "


class Sealed(Exception):
    """An encrypted file that cannot be opened: why, and what helps. Nothing of its content."""


@frozen
class AgeIdentity:
    """The identity that files are encrypted for: the text of an identity file, or where one is. It may hold several."""

    text: str | None = field(default=None, repr=False)
    path: Path | None = None

    def read(self) -> str:
        """The text. Raises Sealed when there is none."""
        if self.text is not None:
            return self.text
        if self.path is None:
            raise Sealed("no identity: set COREFLOW_AGE_IDENTITY_FILE, or a secret COREFLOW_AGE_IDENTITY")
        try:
            return read_file(self.path).decode()
        except OSError as exc:
            raise Sealed(f"the identity file {self.path} cannot be read: {exc.strerror}") from None
        except UnicodeDecodeError:
            raise Sealed(f"the identity file {self.path} is not text") from None


def opened(data: bytes, identity: AgeIdentity) -> bytes:
    """Open an encrypted file; its content. Raises Sealed."""
    try:
        pyrage: Any = importlib.import_module("pyrage")
    except ImportError:
        raise Sealed(
            "this coreflow was installed without age: in its clone, pip install -c constraints.txt -e '.[age]'"
        ) from None
    try:
        text = identity.read()
        if text.lstrip().startswith(_SSH):
            keys = [pyrage.ssh.Identity.from_buffer(text.encode())]
        else:
            lines = (line.strip() for line in text.splitlines())
            keys = [pyrage.x25519.Identity.from_str(line) for line in lines if line.startswith(_NATIVE)]
    except pyrage.IdentityError:
        raise Sealed("the identity is none that age made") from None
    if not keys:
        raise Sealed(f"the identity has no line that begins with {_NATIVE}")
    try:
        content: bytes = pyrage.decrypt(data, keys)
    except pyrage.DecryptError:
        raise Sealed("it is not encrypted for this identity, or it is damaged") from None
    return content
