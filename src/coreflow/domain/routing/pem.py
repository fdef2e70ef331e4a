"""PEM blocks in whatever people put around them: text, indentation, other line ends, a byte order mark, other blocks.

What is read is written again in the strict form, since the readers of others are not as calm.
"""

import base64
import binascii
import re
from collections.abc import Iterator

from attrs import field, frozen

_BLOCK = re.compile(
    r"-----BEGIN (?P<label>[A-Z0-9 ]+)-----(?P<body>[^-]*(?:-(?!----)[^-]*)*)-----END (?P=label)-----"
)
_LINE = 64
CERTIFICATES = frozenset({"CERTIFICATE", "X509 CERTIFICATE"})
"""Labels of blocks that hold a certificate."""


@frozen
class Block:
    """One block. `body` is None where it is not what its label says: encrypted, with headers, or damaged."""

    label: str
    body: bytes | None = field(repr=False)
    is_encrypted: bool = False

    def text(self) -> str:
        """The block as everybody reads it."""
        code = base64.b64encode(self.body or b"").decode()
        lines = [code[start : start + _LINE] for start in range(0, len(code), _LINE)]
        return "\n".join((f"-----BEGIN {self.label}-----", *lines, f"-----END {self.label}-----", ""))


def blocks(text: str) -> Iterator[Block]:
    """Every complete block of a text, in order."""
    for match in _BLOCK.finditer(text):
        label, body = match["label"], match["body"]
        try:
            yield Block(
                label,
                base64.b64decode("".join(body.split()), validate=True),
                is_encrypted=label.startswith("ENCRYPTED"),
            )
        except (binascii.Error, ValueError):
            yield Block(label, None, is_encrypted="ENCRYPTED" in label or "ENCRYPTED" in body)
