"""Spellings of a string: escaped, percent-encoded, in base64 or hex, one inside the other.

A search in a peer's message searches all its views, and every character of a view has its place in the message. Decoding
the message, which is short, finds every spelling. Encoding the secrets in every way, at every alignment, would not, and
there may be many of them.
"""

import binascii
import html
import re
from collections.abc import Callable, Iterator
from unicodedata import normalize
from urllib.parse import unquote

from attrs import evolve, field, frozen

CUT = "…"
"""Stands behind what was decoded, and wherever something was left out."""
_VIEWS, _CHARACTERS = 40, 200_000
"""Views that are made of one text, and their characters in all."""
_SHORTEST_RUN = 12
"""Fewer characters read as text by chance."""
_TELLING_RUN = 24
"""A run of so many that reads as text when decoded is no word: it was encoded by somebody."""

Span = tuple[int, int]


@frozen
class View:
    """A text in another spelling, and the part of the original that each of its characters came from."""

    text: str
    spans: tuple[Span, ...] = field(repr=False)
    is_text: bool = True
    """False where words were decoded that nobody had encoded: full of noise."""

    def origin(self, start: int, end: int) -> Span:
        """Return where in the original a part of this view came from."""
        return min(s for s, _ in self.spans[start:end]), max(e for _, e in self.spans[start:end])


def views(text: str) -> tuple[View, ...]:
    """The text itself, and whatever it reads as when it is decoded, a few times if need be."""
    found = [View(text, tuple((at, at + 1) for at in range(len(text))))]
    seen, size = {text}, len(text)
    for view in found:
        if not view.is_text:
            continue
        for decoder in _DECODERS:
            new = decoder(view)
            if new.text in seen or len(found) >= _VIEWS or size + len(new.text) > _CHARACTERS:
                continue
            seen.add(new.text)
            size += len(new.text)
            found.append(new)
    return tuple(found)


def encoded(view: View) -> Iterator[Span]:
    """Long runs of base64 or hex that read as text: where they are in the view."""
    for pattern, decode in ((_BASE64, _base64), (_HEX, _hex)):
        for run in pattern.finditer(view.text):
            if len(run[0]) >= _TELLING_RUN and _readable(decode, run[0]):
                yield run.span()


def _decoded(view: View, pattern: re.Pattern[str], decode: Callable[[str], str | None]) -> View:
    """The view with every match decoded, where that can be done."""
    pieces, spans, at = [], list[Span](), 0
    for match in pattern.finditer(view.text):
        plain = decode(match[0])
        if plain is not None:
            start, end = match.span()
            pieces += [view.text[at:start], plain]
            spans += view.spans[at:start]
            spans += [view.origin(start, end)] * len(plain)
            at = end
    if not pieces:
        return view
    return View("".join([*pieces, view.text[at:]]), (*spans, *view.spans[at:]))


# --- escapes

_ESCAPES = re.compile(
    r"(?:\\u[0-9a-fA-F]{4})+|\\U[0-9a-fA-F]{8}|(?:\\x[0-9a-fA-F]{2})+|(?:\\[0-3][0-7]{2})+|\\[abfnrtv\"'\\/]"
)
"""As JSON, Go (`%q`), Python and C (octal, also in Go's text protocol buffers) quote."""
_LETTERS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_PERCENT = re.compile(r"(?:%[0-9a-fA-F]{2})+")
_ENTITIES = re.compile(r"&(?:#\d{1,7}|#x[0-9a-fA-F]{1,6}|quot|amp|lt|gt|apos|nbsp);")
_HALF = re.compile(r"(?:\\(?:u[0-9a-fA-F]{0,3}|x[0-9a-fA-F]?|[0-3][0-7]?)?|%[0-9a-fA-F]?)\Z")
"""The beginning of an escape or a percent sequence whose rest was cut."""


def _unescaped(text: str) -> str:
    digits = re.sub(r"\\[uUx]", "", text)
    match text[1]:
        case "u":
            return bytes.fromhex(digits).decode("utf-16-be", "replace")
        case "U":
            return chr(min(int(digits, 16), 0x10FFFF))
        case "x":
            return bytes.fromhex(digits).decode(errors="replace")
        case "0" | "1" | "2" | "3":
            return bytes(int(digits, 8) for digits in text[1:].split("\\")).decode(errors="replace")
        case letter:
            return _LETTERS.get(letter, letter)


# --- composed characters

_DECOMPOSED = re.compile(
    r"\w[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\u3099\u309a]+|[\u1100-\u11ff]{2,}"
)
"""A letter with its marks behind it, or a Korean syllable in its parts: as file systems and some languages spell them."""


def composed(text: str) -> str:
    """The text with each letter in one character where there is one (Unicode's form C)."""
    return text if text.isascii() else normalize("NFC", text)


# --- base64 and hex

_BASE64 = re.compile(r"(?:[A-Za-z0-9+/_-]{60,}\s{1,2})*[A-Za-z0-9+/_-]{8,}={0,2}")
"""Either alphabet; lines of 60 and more go on in the next one."""
_HEX = re.compile(r"(?:[0-9a-fA-F]{2}){8,}")
_STANDARD = str.maketrans("-_", "+/", "= \t\r\n")


def _base64(run: str, skip: int = 0) -> bytes:
    """The bytes of a run that may have been cut, its first characters left out."""
    digits = run.translate(_STANDARD)[skip:]
    digits = digits[: len(digits) - (len(digits) % 4 == 1)]
    return binascii.a2b_base64(digits + "=" * (-len(digits) % 4))


def _hex(run: str, skip: int = 0) -> bytes:
    digits = run[skip:]
    return bytes.fromhex(digits[: len(digits) & ~1])


def _readable(decode: Callable[..., bytes], run: str) -> str | None:
    """Return what somebody had encoded, if it is a text. One that was cut may end within a character."""
    if len(run) < _SHORTEST_RUN:
        return None
    for skip in range(4):
        data = decode(run, skip)
        for end in range(len(data), max(len(data) - 4, 0), -1):
            try:
                text = data[:end].decode()
            except UnicodeDecodeError:
                continue
            if all(char.isprintable() or char.isspace() for char in text):
                return text + CUT
            break
    return None


def _noise(run: str) -> str:
    """Return whatever a run may stand for, wherever it begins: it may be glued to something else, or be no text."""
    found = [_base64(run, skip) for skip in range(4)]
    if _HEX.fullmatch(run):
        found += [_hex(run, skip) for skip in range(2)]
    return "".join(f"{data.decode(errors='replace')}{CUT}" for data in found)


_DECODERS: tuple[Callable[[View], View], ...] = (
    lambda view: _decoded(view, _HALF, lambda _: ""),
    lambda view: _decoded(view, _ESCAPES, _unescaped),
    lambda view: view if view.text.isascii() else _decoded(view, _DECOMPOSED, composed),
    lambda view: _decoded(view, _PERCENT, lambda run: unquote(run, errors="replace")),
    lambda view: _decoded(view, _ENTITIES, html.unescape),
    lambda view: _decoded(view, _BASE64, lambda run: _readable(_base64, run)),
    lambda view: _decoded(view, _HEX, lambda run: _readable(_hex, run)),
    lambda view: evolve(_decoded(view, _BASE64, _noise), is_text=False),
)
"""One step each."""
