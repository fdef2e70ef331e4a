"""Redaction of what peers say: every string from a peer passes here before it becomes part of a message.

Three things are taken out, and `…` stands for them: what is known to be secret, in whatever spelling (`spellings`) and
also where only its beginning was quoted; what looks like a credential, known or not; and whatever is more than one line
of bounded length. Case does not matter, nor how much space there is.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from typing import Protocol
from urllib.parse import unquote

from attrs import field, frozen

from .spellings import CUT, Span, View, composed, encoded, views

TEXT_LIMIT = 500
"""Characters of a peer's text that are passed on."""
_READ_LIMIT = 4_000
"""Characters that are looked at; the rest is dropped unseen."""
SHORTEST_SECRET = 4
"""A shorter text is no secret by itself: without it, other words would suffer."""
SHORTEST_VALUE = 6
"""The same for a value that belongs to a name. Beside its name any length counts."""
_BEGINNING = 8
"""So much of the beginning of a secret must not be seen either."""
_BEGINNING_OF_VALUE = 16
"""The same for the value of a name, which may be made of harmless words."""
_CUT_BEGINNING = 4
"""The same for either, where the text ends behind it."""
_LONGEST = _READ_LIMIT
"""Characters of a secret that are looked for: a text of a peer holds no more of it."""


class Redact(Protocol):
    """Takes the text of a peer, and gives what may be told of it: one line of at most `limit` characters."""

    def __call__(self, text: str, limit: int = TEXT_LIMIT, /) -> str:
        """See `Redactor.redact`."""
        ...


class Redactor:
    """Everything that must not be told. Made in no time: what it takes to search for it is made with the first text.

    `secrets` are passwords, tokens, keys. `values` are pairs of a name and what it stands for, such as variables: these
    may be as harmless as `NAME=true`, and are left alone where they are also among the `public` names. `words` are those
    values that are no more than a word (see `is_word`): they are taken out of what peers say, where they stand alone.
    """

    def __init__(
        self,
        secrets: Iterable[str] = (),
        values: Iterable[tuple[str, str]] = (),
        public: Iterable[str] = (),
        *,
        words: Iterable[str] = (),
        others: Iterable["Redactor"] = (),
    ) -> None:
        own = _Known(tuple(secrets), tuple(values), tuple(public), frozenset(words))
        inherited = [known for other in others for known in other.known]
        self.known: tuple[_Known, ...] = tuple(dict.fromkeys([own, *inherited])) if own else (*inherited,)

    def __repr__(self) -> str:
        return "Redactor()"

    def __or__(self, other: "Redactor") -> "Redactor":
        """One that knows what both know."""
        return Redactor(others=(self, other))

    def redact(self, text: object, limit: int = TEXT_LIMIT, *, ours: bool = False) -> str:
        """Return what may be told of a text, on one line of at most `limit` characters. What is no text is empty.

        A text that is `ours`, in which peers' texts are redacted already, keeps its words: a variable whose value is
        `service` is no reason to hide what happened to a service.
        """
        if not isinstance(text, str):
            return ""
        text = text[:_READ_LIMIT]
        found: set[Span] = set()
        for view in views(text):
            if view.is_text:
                found.update(view.origin(*span) for span in _shapes(view))
            if self.known:
                plain = _Plain.of(view)
                found.update(
                    plain.origin(*span)
                    for known in self.known
                    for span in known.places(plain.text, ours=ours)
                )
        return _one_line(_without(text, found), limit)


def _without(text: str, spans: Iterable[Span]) -> str:
    """The text with `…` for each of the parts, and one for those that touch."""
    kept, at, end = [], 0, -1
    for start, stop in sorted(spans):
        if start > end:
            kept += [text[at:start], CUT]
        at = end = max(end, stop)
    return "".join([*kept, text[at:]])


def _one_line(text: str, limit: int) -> str:
    text = " ".join("".join(char for char in text if char.isprintable() or char.isspace()).split())
    return text if len(text) <= limit else text[: limit - 1] + CUT


# --- what is known


@frozen
class _Plain:
    """A view without what does not matter: in lower case, with single spaces, and without unprintable characters.

    A `+` is a space in some spellings, so it is one in all.
    """

    text: str
    view: View
    places: tuple[int, ...] | None = None
    """Where each character is in the view, unless all are where they were."""

    @classmethod
    def of(cls, view: View) -> "_Plain":
        text = view.text
        if text.isascii() and text.isprintable() and "  " not in text and "+" not in text:
            return cls(text.lower(), view)
        pairs = tuple(_plain_characters(text))
        characters, places = zip(*pairs, strict=True) if pairs else ((), ())
        return cls("".join(characters), view, places)

    def origin(self, start: int, end: int) -> Span:
        if self.places is None:
            return self.view.origin(start, end)
        return self.view.origin(self.places[start], self.places[end - 1] + 1)


_SPACES = re.compile(r"[ +]+")


def _plain_characters(text: str) -> Iterator[tuple[str, int]]:
    before = ""
    for at, char in enumerate(text):
        plain = _plain_character(char)
        if plain and not plain == before == " ":
            yield plain, at
        before = plain


@lru_cache(maxsize=4096)
def _plain_character(char: str) -> str:
    """Return what a character is in a plain text; empty: nothing. Texts are long, and use few characters."""
    if char == "+" or char.isspace():
        return " "
    if not char.isprintable():
        return ""
    low = char.lower()
    return low if len(low) == 1 else char


def _plain(text: str) -> str:
    if text.isascii() and text.isprintable():
        return _SPACES.sub(" ", text[:_LONGEST]).lower().strip()
    return "".join(char for char, _ in _plain_characters(text[:_LONGEST])).strip()


_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_SPECIAL = re.compile(r"[\n%]|://|\{\{")
_ACTION = re.compile(r"\{\{(.*?)(?:\}\}|\Z)")
"""Of a Go template."""
_COMMON = re.compile(r"/|[a-z][a-z0-9+.-]*://|(?:[a-z0-9-]+\.)+[a-z]{2,}\b", re.IGNORECASE)
"""Paths, URLs and host names: other texts begin with the same, and tell nothing by that."""


def _parts(secret: str) -> Iterator[str]:
    """Yield what of a secret must not be seen: itself without the scheme that other URLs have too, its lines, its password,
    the words of a template."""
    scheme = _URL.match(secret)
    text = secret[scheme.end() if scheme else 0 : _LONGEST]
    yield text
    if "\n" in text:
        yield from (line for line in text.splitlines() if len(line) >= _BEGINNING)
    if scheme:
        yield _password(text)
    for action in _ACTION.findall(text):  # the engine quotes words of it by themselves
        yield from action.split()


def _password(text: str) -> str:
    """Of a URL without its scheme; empty: none."""
    return text.rpartition("@")[0].partition(":")[2]


def _forms(secret: str) -> Iterator[str]:
    if not _SPECIAL.search(secret):
        yield secret
        return
    for part in _parts(secret):
        yield part
        if "%" in part:
            yield unquote(part)


@frozen(eq=False)
class _Texts:
    """Texts to look for, in a form that finds the longest of very many at once."""

    ordered: tuple[str, ...]
    whole: frozenset[str]
    starts: frozenset[str]
    beginning: int

    @classmethod
    def of(cls, texts: Iterable[str], *, shortest: int, beginning: int) -> "_Texts":
        spellings = {form for text in texts for form in _forms(text)}
        forms = {_plain(form) for form in spellings} | {_plain(composed(form)) for form in spellings}
        kept = sorted(form for form in forms if len(form) >= shortest)
        return cls(tuple(kept), frozenset(kept), frozenset(form[:_CUT_BEGINNING] for form in kept), beginning)

    def places(self, text: str) -> Iterator[Span]:
        if not self.starts:
            return
        starts, end = self.starts, 0
        for at in range(len(text) - _CUT_BEGINNING + 1):
            if (
                text[at : at + _CUT_BEGINNING] in starts
                and at >= end
                and (length := self._length_at(text, at))
            ):
                end = at + length
                yield at, end

    def _length_at(self, text: str, at: int) -> int:
        """Return how many characters from here on are one of the texts, or so much of its beginning that it tells something."""
        rest = text[at : at + _LONGEST]
        length = _longest_beginning(self.ordered, rest)
        if length >= self.beginning or (length >= _CUT_BEGINNING and _is_cut(rest, length)):
            return length
        return next((n for n in range(length, 0, -1) if rest[:n] in self.whole), 0)


def _longest_beginning(ordered: tuple[str, ...], text: str) -> int:
    """Return how much of a text is the beginning of one of these: that one stands next to where the text would."""
    at = bisect_left(ordered, text)
    return max(_common(one, text) for one in (*ordered[max(at - 1, 0) : at], *ordered[at : at + 1], ""))


def _common(one: str, other: str) -> int:
    return next(
        (n for n, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]),
        min(len(one), len(other)),
    )


def _is_cut(text: str, at: int) -> bool:
    """Return whether nothing follows, or something that says that more was there."""
    return len(text) == at or text.startswith((CUT, "..."), at)


_NAMED = re.compile(r"(?<![\w.-])([\w.-]++)(?:=|[\"']?:) ?[\"']?")
"""A name and whatever leads to its value: `NAME=`, `"NAME": "`. A word that is no name is gone through once: it may be long."""
_WORD = re.compile(r"\w")
_LONE = re.compile(r"(?<![^\W_])[a-z]+(?![^\W_])")


_PLAIN_WORD = re.compile(r"(?=.*[aeiouy])(?!.*[^aeiouy]{4})[a-z]{1,10}")
_TELLING_NAME = re.compile(r"pass|pwd|secret|token|cred|key|jwt|auth|salt|pin\b", re.IGNORECASE)


def is_word(name: str, value: str) -> bool:
    """Return whether the value of a name is no more than a word: short, in lower case, to be pronounced, of a harmless name."""
    return bool(_PLAIN_WORD.fullmatch(value)) and not _TELLING_NAME.search(name)


@frozen(eq=False)
class _Known:
    """Secrets, and values by their names."""

    secrets: tuple[str, ...] = field(repr=False)
    values: tuple[tuple[str, str], ...] = field(repr=False)
    public: tuple[str, ...] = field(repr=False)
    words: frozenset[str] = field(repr=False)

    def __bool__(self) -> bool:
        return bool(self.secrets or self.values)

    @cached_property
    def _texts(self) -> tuple[_Texts, ...]:
        values = {value for _, value in self.values} - set(self.public) - self.words
        common = {value for value in values if _COMMON.match(value)}
        secrets = (*self.secrets, *map(_password, common))
        return (
            _Texts.of(secrets, shortest=SHORTEST_SECRET, beginning=_BEGINNING),
            _Texts.of(values - common, shortest=SHORTEST_VALUE, beginning=_BEGINNING_OF_VALUE),
            _Texts.of(common, shortest=SHORTEST_VALUE, beginning=_LONGEST),
        )

    @cached_property
    def _by_name(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, set[str]] = {}
        for name, value in self.values:
            if value:
                found.setdefault(_plain(name), set()).add(_plain(value))
        return {name: tuple(sorted(values)) for name, values in found.items()}

    @cached_property
    def _lone(self) -> frozenset[str]:
        return frozenset(word for word in self.words - set(self.public) if len(word) >= SHORTEST_VALUE)

    def places(self, text: str, *, ours: bool = False) -> Iterator[Span]:
        """Yield where in a plain text they are."""
        if self._lone and not ours:
            yield from (found.span() for found in _LONE.finditer(text) if found[0] in self._lone)
        for texts in self._texts:
            yield from texts.places(text)
        for match in _NAMED.finditer(text):
            if values := self._by_name.get(match[1]):
                at = match.end()
                if length := _value_length(values, text[at : at + _LONGEST]):
                    yield at, at + length


def _value_length(values: tuple[str, ...], text: str) -> int:
    """Return how many characters of a text behind a name are its value, or a beginning of it."""
    length = _longest_beginning(values, text)
    if length >= _CUT_BEGINNING or _is_cut(text, length):
        return length
    wholes = (n for n in range(length, 0, -1) if text[:n] in values and not _WORD.match(text, n))
    return next(wholes, 0)


# --- what looks like a credential

_SHAPES = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        # a PEM block, to its end or to that of the text
        r"(?P<s>(?<!-)-{3,} ?BEGIN\b.*?(?:-{3,} ?END\b[^-]*-{3,}|\Z))",
        # user and password in a URL, or before any other address; not the digest of an image
        r"://(?P<s>\S*)@",
        r"(?P<s>(?<![\w.-])[\w.+-]+:[^\s:@/]+)@(?!sha\d+:)",
        # headers
        (
            r"(?i:\b(?:proxy-)?authorization|\bx-registry-(?:auth|config)|\b(?:set-)?cookie|\bx-api-key)"
            r"[\"']?\s*[:=]\s*[\"']?(?:(?i:bearer|basic|digest|token)\s+)?(?P<s>[^\s\"',]+)"
        ),
        r"(?i:\b(?:bearer|basic))\s+(?P<s>(?=[^\s]*[A-Z0-9=_])[A-Za-z0-9._~+/=-]{8,})",
        # names that tell, before a value
        (
            r"(?i:pass(?:word|wd)?|pwd|secret|token|credentials?|api_?key|access_?key|private_?key|jwt)"
            r"(?:=[\"']?|[\"']\s*:\s*[\"'])(?P<s>[^\s\"',;&)\]}]+)"
        ),
        # a JSON web token, or any JSON object in base64
        r"(?P<s>\beyJ[A-Za-z0-9+/_-]{5,}=*(?:\.[A-Za-z0-9_-]*){0,2})",
        r"(?P<s>\bSWMTKN-\S+)",
    )
)
_RUN = re.compile(r"[A-Za-z0-9+/]{40,}|[A-Za-z0-9_-]{40,}")
_MIX = tuple(map(re.compile, ("(?:[A-Z].*){4}", "(?:[a-z].*){4}", "[0-9]")))


def _shapes(view: View) -> Iterator[Span]:
    for shape in _SHAPES:
        for match in shape.finditer(view.text):
            if match["s"]:
                yield match.span("s")
    for run in _RUN.finditer(view.text):  # long, and in mixed case: neither a name nor a digest
        if all(kind.search(run[0]) for kind in _MIX):
            yield run.span()
    yield from encoded(view)


NOTHING_KNOWN = Redactor()
"""Takes out what looks like a credential."""

__all__ = ["NOTHING_KNOWN", "TEXT_LIMIT", "Redact", "Redactor", "is_word"]
