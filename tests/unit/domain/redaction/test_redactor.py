"""What is left of a peer's text: nothing secret in any spelling, and everything else."""

import base64
import html
import json
import unicodedata
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from coreflow.domain.redaction.redactor import NOTHING_KNOWN, TEXT_LIMIT, Redactor, is_word

SECRET = 'cAnary-pä/ss+w "ord%41'
TOKEN = "canary0123456789abcdef"
KEY = "-----BEGIN PRIVATE KEY-----\nMIIEcanary0\nabcdefghij==\n-----END PRIVATE KEY-----\n"
ENGINE = "rpc error: code = InvalidArgument desc = {} in the spec"


def go_quoted(text: str) -> str:
    """As Go's `%q` writes it."""
    return json.dumps(text, ensure_ascii=False)


def base64_of(text: str, before: int = 0) -> str:
    """In base64, with so many bytes before it, which shifts the alignment."""
    return base64.b64encode(b"." * before + text.encode() + b"..").decode()


PRINTABLE = st.characters(categories=["L", "M", "N", "P", "S"], include_characters=" ")


def all_escaped(text: str) -> str:
    """Every UTF-16 unit as JSON may escape it: two for a character beyond the first 65,536."""
    units = text.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{high:02X}{low:02X}" for high, low in zip(units[::2], units[1::2], strict=True))


SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "upper case": str.upper,
    "JSON": json.dumps,
    "JSON with UTF-8": go_quoted,
    "JSON in JSON": lambda text: json.dumps(json.dumps({"a": text})),
    "all escaped": all_escaped,
    "bytes escaped": lambda text: "".join(f"\\x{byte:02x}" for byte in text.encode()),
    "Python": repr,
    "percent": lambda text: quote(text, safe=""),
    "percent, slashes kept": quote,
    "form": quote_plus,
    "all percent": lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
    "HTML": html.escape,
    **{f"base64 + {n}": lambda text, n=n: base64_of(text, n) for n in range(4)},  # type: ignore[misc]
    "base64, urlsafe": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "base64, no padding": lambda text: base64_of(text).rstrip("="),
    "base64 of JSON": lambda text: base64_of(json.dumps({"KEY": text})),
    "base64 in base64": lambda text: base64_of(base64_of(text)),
    "base64 behind a path": lambda text: f"v1/{base64_of(text)}",
    "base64 in lines": lambda text: base64.encodebytes(b"." * 70 + text.encode()).decode(),
    "base64 of bytes": lambda text: base64.b64encode(b"\xff\xfe\x00" + text.encode() + b"\xff").decode(),
    "hex": lambda text: text.encode().hex(),
    "HEX": lambda text: text.encode().hex().upper(),
    "controls between": lambda text: "\x00".join(text),
    "wrapped": lambda text: text.replace(" ", "\n  "),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("secret", [SECRET, TOKEN], ids=["odd", "token"])
def test_every_spelling_of_a_secret_is_taken_out(spelling: str, secret: str) -> None:
    """However a peer quotes a known secret, nothing of it is left, and what stands around it is."""
    for redactor in (Redactor([secret]), Redactor(values=[("KEY", secret)])):
        told = redactor.redact(ENGINE.format(SPELLINGS[spelling](secret)))
        assert told.startswith("rpc error: code = InvalidArgument desc = ")
        assert told.endswith(" in the spec")
        assert "…" in told
        assert len(told) < len(ENGINE) + 20


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("kept", [0.4, 0.6, 0.9])
def test_a_secret_that_was_cut_is_taken_out(spelling: str, kept: float) -> None:
    """A text that ends within a secret shows no more of it than four characters."""
    quoted = SPELLINGS[spelling](TOKEN)
    told = Redactor([TOKEN]).redact(f"it says {quoted[: int(len(quoted) * kept)]}")
    shown = told.removeprefix("it says ")
    assert TOKEN[:4] not in shown.lower()
    assert len(shown) <= 20


@given(
    st.text(PRINTABLE, min_size=8, max_size=40).filter(lambda text: len("".join(text.split())) >= 8),
    st.lists(
        st.sampled_from(
            sorted(set(SPELLINGS) - {"upper case", "controls between", "wrapped", "base64 of bytes"})
        ),
        max_size=2,
    ),
)
@example("0000000\U00016800", ["all escaped"])
def test_spellings_inside_each_other(secret: str, steps: list[str]) -> None:
    """Any printable secret, in two spellings one inside the other, is taken out."""
    quoted = secret
    for step in steps:
        quoted = SPELLINGS[step](quoted)
    told = Redactor([secret]).redact(f"it says: {quoted}")
    assert "…" in told
    assert quoted not in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('expanding env "PIN=1": bad', 'expanding env "PIN=…": bad'),
        ('{"PIN":"1","MODE": "on"}', '{"PIN":"…","MODE": "…"}'),
        ("[PIN=1 MODE=on]", "[PIN=… MODE=…]"),
        ("PIN%3D1", "PIN%3D…"),
        ("pin=1", "pin=…"),
        ("1 task is on, PIN=12, PINS=1", "1 task is on, PIN=12, PINS=1"),
        ("MODE=onwards", "MODE=onwards"),
        ("a production of shop", "a … of shop"),
        ("LONG=a-long-val", "LONG=…"),
        ("LONG=a-lo and so on", "LONG=… and so on"),
        ("it has a-long-value-of-many-w and so on", "it has … and so on"),
        ("it has a-long-v and so on", "it has a-long-v and so on"),
        ("it has a-long-v...", "it has …..."),
        ("no /var/lib/data/shop, no /var/lib/data here", "no …, no /var/lib/data here"),
        ("https://api.example.com/other", "https://api.example.com/other"),
        ("https://api.example.com/path/of/it", "https://…"),
        ("pass hunter2 to db.example.com", "pass … to db.example.com"),
        ('function "secretWord" not defined', 'function "…" not defined'),
    ],
)
def test_values_of_names(text: str, told: str) -> None:
    """A short value is taken out beside its name, a longer one anywhere; what other texts begin with stays."""
    values = {
        "PIN": "1",
        "MODE": "on",
        "STAGE": "production",
        "NAME": "shop",
        "SHOP": "storefront",
        "LONG": "a-long-value-of-many-words",
        "DATA": "/var/lib/data/shop",
        "API": "https://api.example.com/path/of/it",
        "DB": "postgres://u:hunter2@db.example.com/x",
        "TEMPLATE": "x{{ secretWord }}y",
    }
    assert Redactor(values=values.items()).redact(text) == told


def test_public_names_stay() -> None:
    """The value of a variable that is also the name of a service is told, a secret of that text is not."""
    redactor = Redactor(values=[("NAME", "storefront"), ("OTHER", "backyard")], public=["storefront"])
    assert redactor.redact("storefront, backyard") == "storefront, …"
    assert (redactor | Redactor(["storefront"])).redact("storefront, backyard") == "…, …"


@pytest.mark.parametrize("line", KEY.splitlines()[1:3])
def test_lines_of_a_key(line: str) -> None:
    """A line of a known key by itself is as secret as all of it."""
    assert Redactor([KEY]).redact(f"bad line {line}!") == "bad line …!"


SHAPES = [
    (f"x {KEY} y", "x … y"),
    (f"x {json.dumps(KEY)} y", 'x "…\\n" y'),
    ("x -----BEGIN CERTIFICATE-----\nMIIE", "x …"),
    (f"x {base64_of(KEY)} y", "x … y"),
    ("at mongodb://user:canary@host:1/db", "at mongodb://…@host:1/db"),
    ("at http://us@er:can/ary@host", "at http://…@host"),
    ("at https%3A%2F%2Fuser%3Acanary%40host", "at https%3A%2F%2F…%40host"),
    ("dsn root:canary@tcp(db)/x", "dsn …@tcp(db)/x"),
    ("Authorization: Bearer canary", "Authorization: Bearer …"),
    ('"authorization":"Basic Y2FuYXJ5"', '"authorization":"Basic …"'),
    ("X-Registry-Auth: abc", "X-Registry-Auth: …"),
    ("sent Bearer cst_canary-0123456789", "sent Bearer …"),
    ("mount -o username=u,password=canary,vers=3", "mount -o username=u,password=…,vers=3"),
    ('{"password": "canary", "a": 1}', '{"password": "…", "a": 1}'),
    ("jwt eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJ bad", "jwt … bad"),
    ("auth eyJ1c2VybmFtZSI6InUifQ== bad", "auth … bad"),
    ("join SWMTKN-1-abc-def now", "join … now"),
    ("body MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7 bad", "body … bad"),
]


@pytest.mark.parametrize(("text", "told"), SHAPES)
def test_what_looks_like_a_credential(text: str, told: str) -> None:
    """Keys, users in URLs, headers, tokens and long encoded runs are taken out though nobody knows them."""
    assert NOTHING_KNOWN.redact(text) == told


TELLING = [
    f"image registry.example.com/team/app:1.2@sha256:{'0a1b2c3d' * 8} not found",
    "unauthorized: authentication required",
    "no basic auth credentials; basic authentication required, bearer token is invalid",
    'Get "https://registry-1.docker.io/v2/": dial tcp 192.0.2.1:443: connect: connection refused',
    'Bearer realm="https://auth.example.com/token",service="registry.example.com"',
    "bind source path does not exist: /var/lib/serve.zone/corestore/volumes/Lab_data-0123/_data",
    "toomanyrequests: You have reached your pull rate limit. https://www.docker.com/increase-rate-limit",
    "service 8zqx5h1p2k9v7m3n4b6c0d1f2 update out of sequence",
    "no suitable node (scheduling constraints not satisfied on 1 node)",
    'secret "coreflow-web-0123456789abcdef" is in use by the following service: web',
    "token mismatch: the token has expired",
    "the password: it is wrong",
]


@pytest.mark.parametrize("text", TELLING)
def test_reasons_stay(text: str) -> None:
    """Names, digests, addresses and the words of an error are told as they are."""
    assert Redactor([SECRET, TOKEN, KEY], [("PIN", "1")]).redact(text) == text


def test_one_short_line() -> None:
    """A text becomes one line without anything that a terminal obeys, of bounded length; a secret at its end stays out."""
    told = NOTHING_KNOWN.redact("one\n\ttwo\x1b[31m\u202ethree\x00")
    assert told == "one two[31mthree"
    for size in (1, 480, TEXT_LIMIT - 3, TEXT_LIMIT, 3_990, 100_000):
        told = Redactor([TOKEN]).redact("x " * (size // 2) + TOKEN * 20)
        assert len(told) <= TEXT_LIMIT
        assert TOKEN[:4] not in told
    assert NOTHING_KNOWN.redact("a long text", 6) == "a lon…"


def test_what_is_no_text_is_empty() -> None:
    """A peer may send anything where its text should be."""
    assert [NOTHING_KNOWN.redact(what) for what in (None, 1, ["x"], {"a": "x"})] == ["", "", "", ""]


def test_twice_is_once() -> None:
    """What was redacted stays as it is when it is redacted again."""
    redactor = Redactor([SECRET, TOKEN], [("KEY", SECRET)])
    for text in (
        *(text for text, _ in SHAPES),
        *(ENGINE.format(spell(SECRET)) for spell in SPELLINGS.values()),
    ):
        once = redactor.redact(text)
        assert redactor.redact(once) == once


def test_a_redactor_shows_nothing() -> None:
    """Not by its own description either."""
    assert "anary" not in repr(Redactor([TOKEN], [("A", TOKEN)]).known) + repr(Redactor([TOKEN]))


def test_a_word_is_taken_out_where_it_stands_alone_and_only_of_what_peers_say() -> None:
    """`A: service` hides neither `$.services[1]` of a peer nor anything that we say ourselves."""
    redactor = Redactor(values=[("A", "service")], words={"service"})
    assert redactor.redact("no service here: service_x, $.services[1], Service") == (
        "no … here: …_x, $.services[1], …"
    )
    assert redactor.redact("creating service web: A=service", ours=True) == "creating service web: A=…"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("A", "service", True),
        ("MODE", "production", True),
        ("A", "Service", False),
        ("A", "service1", False),
        ("A", "xkqjzvbw", False),
        ("A", "correcthorse", False),
        ("DB_PASSWORD", "service", False),
        ("apiKey", "service", False),
    ],
)
def test_what_is_no_more_than_a_word(name: str, value: str, expected: bool) -> None:
    """Nothing that could be a secret: longer, mixed, not to be pronounced, or of a name that tells."""
    assert is_word(name, value) is expected


def test_other_values_are_taken_out_of_our_own_texts_too() -> None:
    """Only words stay there."""
    redactor = Redactor(["hunter"], [("B", "s3rvice-canary")], words={"service"})
    assert redactor.redact("xs3rvice-canaryx hunters", ours=True) == "x…x …s"


@pytest.mark.parametrize(
    "secret", ["canary-Jos\u00e9-1", "canary-Jose\u0301-1", "\u1112\u1161\u11ab-canary-\ud55c"]
)
def test_composed_or_not_a_secret_is_the_same(secret: str) -> None:
    """A file system or a peer may spell `é` in two characters."""
    for form in ("NFC", "NFD"):
        text = f"cannot read {unicodedata.normalize(form, secret)} here"
        assert Redactor([secret]).redact(text) == "cannot read … here"


def test_octal_escapes_are_read() -> None:
    """C, git and text protocol buffers write `\\101` for `A`."""
    secret = "canary-é-4711"
    octal = "".join(f"\\{byte:03o}" for byte in secret.encode())
    mixed = "canary-\\303\\251-4711"
    for spelt in (octal, mixed):
        assert Redactor([secret]).redact(f'open "{spelt}": failed') == 'open "…": failed'
