"""The settings: where they come from, how they are written, and what is said when they are wrong."""

import ipaddress
import json
import math
import os
import traceback
from collections.abc import Callable, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import attrs
import pytest

from coreflow.app.settings import (
    OVERLAY_FILES,
    SETTINGS,
    Address,
    InvalidSetting,
    Row,
    Settings,
    load_settings,
    settings_table,
)
from coreflow.domain.deploy.base import SERVICES, BaseOptions
from coreflow.domain.deploy.desired import RenderOptions
from coreflow.domain.deploy.steps import PlanOptions

FILE = {"CLOUDLY_URL": "file:///cluster.yaml"}
"""As little as a start needs."""
DOCUMENT = Path(__file__).parents[3] / "docs" / "settings.md"
NAMES = [setting.name for setting in SETTINGS]


def overlay_folder(folder: Path) -> Path:
    return folder / "overlay"


def secrets_folder(folder: Path) -> Path:
    return folder / "secrets"


def load(folder: Path, environ: Mapping[str, str] = FILE, **options: Any) -> Settings:
    """Load with the overlay and the secrets below `folder`."""
    return load_settings(environ, directory=overlay_folder(folder), secrets=secrets_folder(folder), **options)


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def in_environment(_: Path, name: str, value: str) -> dict[str, str]:
    return {name: value}


def in_overlay(folder: Path, name: str, value: str) -> dict[str, str]:
    write(overlay_folder(folder) / "env.json", json.dumps({name: value}))
    return {}


def in_secret_file(folder: Path, name: str, value: str) -> dict[str, str]:
    write(secrets_folder(folder) / name, value)
    return {}


def in_secret_document(folder: Path, name: str, value: str) -> dict[str, str]:
    write(secrets_folder(folder) / "stack-secret.json-v2", json.dumps({name: value}))
    return {}


Source = Callable[[Path, str, str], dict[str, str]]
SOURCES: tuple[Source, ...] = (in_environment, in_overlay, in_secret_file, in_secret_document)
"""In order of precedence: each puts one value in its place."""
PAIRS = tuple(combinations(SOURCES, 2))


@pytest.mark.parametrize(
    ("source", "label"),
    [
        (in_environment, "environment"),
        (in_overlay, "overlay/env.json"),
        (in_secret_file, "secrets/COREFLOW_SECRET_ENVIRONMENT"),
        (in_secret_document, "secrets/stack-secret.json-v2"),
    ],
)
def test_a_value_is_found_in_every_source(source: Source, label: str, tmp_path: Path) -> None:
    """Each source alone is enough, and is named as the place where the value came from."""
    environ = source(tmp_path, "COREFLOW_SECRET_ENVIRONMENT", "staging")
    settings = load(tmp_path, FILE | environ)
    assert settings.secret_environment == "staging"
    assert settings.sources["COREFLOW_SECRET_ENVIRONMENT"].removeprefix(f"{tmp_path}/") == label


@pytest.mark.parametrize(("higher", "lower"), PAIRS)
def test_the_earlier_source_wins(higher: Source, lower: Source, tmp_path: Path) -> None:
    """Of two sources that have a value the one of higher precedence decides."""
    environ = lower(tmp_path, "COREFLOW_UPDATE", "rolling") | higher(tmp_path, "COREFLOW_UPDATE", "recreate")
    assert load(tmp_path, FILE | environ).update == "recreate"


@pytest.mark.parametrize(("higher", "lower"), PAIRS)
@pytest.mark.parametrize("empty", ["", "  ", "\n"])
def test_an_empty_value_counts_as_none(empty: str, higher: Source, lower: Source, tmp_path: Path) -> None:
    """A source whose value is empty or blank leaves the decision to the next one."""
    environ = lower(tmp_path, "COREFLOW_UPDATE", "recreate") | higher(tmp_path, "COREFLOW_UPDATE", empty)
    assert load(tmp_path, FILE | environ).update == "recreate"


@pytest.mark.parametrize("source", SOURCES)
def test_an_empty_list_of_base_services_is_a_value(source: Source, tmp_path: Path) -> None:
    """`COREFLOW_BASE_SERVICES=` means that no base service is wanted."""
    environ = source(tmp_path, "COREFLOW_BASE_SERVICES", "")
    settings = load(tmp_path, FILE | environ)
    assert settings.base_services == ()
    assert {row.name: row.value for row in settings.describe()}["COREFLOW_BASE_SERVICES"] == "(none)"


NETWORK = ipaddress.ip_network
GOOD: dict[str, list[tuple[str, object]]] = {
    "CLOUDLY_URL": [
        ("https://cloudly.example.com", "https://cloudly.example.com"),
        ("http://127.0.0.1:8080/path", "http://127.0.0.1:8080/path"),
        ("wss://[::1]:1", "wss://[::1]:1"),
        ("ws://c", "ws://c"),
        ("file:///etc/cluster%20one.yaml", "file:///etc/cluster%20one.yaml"),
        ("FILE:/cluster.json", "file:///cluster.json"),
        (" https://spaces.example.com\n", "https://spaces.example.com"),
    ],
    "JUMPCODE": [("0123", "0123"), ("a=b#c", "a=b#c")],
    "COREFLOW_AGE_IDENTITY": [("AGE-SECRET-KEY-1X", "AGE-SECRET-KEY-1X")],
    "COREFLOW_AGE_IDENTITY_FILE": [("/run/secrets/identity", Path("/run/secrets/identity"))],
    "CORESTORE_API_TOKEN": [("token", "token")],
    "CORESTORE_CONTROL_URL": [("https://store:3000/base", "https://store:3000/base")],
    "DOCKER_HOST": [
        ("unix:///run/user/0/docker.sock", "unix:///run/user/0/docker.sock"),
        ("tcp://10.0.0.1:2375", "tcp://10.0.0.1:2375"),
        ("tcp://[::1]:2375/", "tcp://[::1]:2375/"),
        ("ssh://host", "ssh://host"),
        ("ssh://me@host:2222", "ssh://me@host:2222"),
    ],
    "DOCKER_TLS_VERIFY": [("1", True), ("true", True)],
    "DOCKER_CERT_PATH": [("/etc/docker/client", Path("/etc/docker/client"))],
    "DOCKER_CONFIG": [("/etc/docker", Path("/etc/docker")), ("~/x", Path.home() / "x")],
    "DOCKER_CONTEXT": [("remote", "remote")],
    "COREFLOW_LISTEN": [
        ("127.0.0.1:0", Address("127.0.0.1", 0)),
        ("[::1]:3000", Address("::1", 3000)),
        ("localhost:65535", Address("localhost", 65535)),
        ("core-flow.example.com:80", Address("core-flow.example.com", 80)),
    ],
    "COREFLOW_ADMIN_LISTEN": [("[::]:3001", Address("::", 3001))],
    "COREFLOW_INITIAL_DELAY": [("0", 0.0), ("2.5", 2.5), (".5", 0.5), ("3.", 3.0)],
    "COREFLOW_SCHEDULE": [
        ("*/30 * * * * *", "*/30 * * * * *"),
        ("0 30 3 * * mon", "0 30 3 * * mon"),
        ("0 0 * * * *", "0 0 * * * *"),
        ("0 0 0 29 2 *", "0 0 0 29 2 *"),
    ],
    "COREFLOW_RELIST_SECONDS": [("0.1", 0.1), ("0", math.inf)],
    "COREFLOW_SETTLE_SECONDS": [("0", 0.0), ("7.5", 7.5), ("3600", 3600.0)],
    "COREFLOW_SECRET_ENVIRONMENT": [("staging two", "staging two")],
    "COREFLOW_BASE_SERVICES": [("corelog, corestore,corelog,", ("corelog", "corestore")), (",", ())],
    **{
        f"COREFLOW_{name.upper()}_IMAGE": [("r.example.com:5000/a/b:1", "r.example.com:5000/a/b:1")]
        for name in SERVICES
    },
    "COREFLOW_CORETRAFFIC_PUBLISH": [("host", "host"), ("Ingress", "ingress")],
    "COREFLOW_CORETRAFFIC_PEERS": [
        ("tasks", "tasks"),
        ("127.0.0.0/8, ::1/128", (NETWORK("127.0.0.0/8"), NETWORK("::1/128"))),
        ("10.0.0.7", (NETWORK("10.0.0.7/32"),)),
    ],
    "HTTPS_PROXY": [("http://u:p@proxy:3128", "http://u:p@proxy:3128"), ("proxy:3128", "http://proxy:3128")],
    "HTTP_PROXY": [("https://proxy.example.com/", "https://proxy.example.com/")],
    "NO_PROXY": [("a.example.com,10.0.0.1", "a.example.com,10.0.0.1"), ("*", "*")],
    "COREFLOW_CLOUDLY_CA_FILE": [("/etc/ssl/own ca.pem", Path("/etc/ssl/own ca.pem"))],
    "COREFLOW_IMAGE_LIMIT_MB": [("1", 1), ("20000", 20000)],
    "COREFLOW_IMAGE_TIMEOUT": [("60", 60.0), ("0", math.inf)],
    "COREFLOW_MESSAGE_LIMIT_MB": [("16", 16)],
    "COREFLOW_METRICS_PER_SERVICE": [("no", False), ("true", True)],
    "COREFLOW_REPORT_LOGS": [("no", False), ("true", True)],
    "COREFLOW_ROUTE_TASKS": [("first", "first"), ("ALL", "all")],
    "COREFLOW_KEEP_ON_NODE": [("off", False), ("on", True)],
    "COREFLOW_STRICT": [("true", True), ("off", False)],
    "COREFLOW_STATE_DIR": [("/var/lib/coreflow", Path("/var/lib/coreflow"))],
    "COREFLOW_JOURNAL_LIMIT_MB": [("1", 1), ("500", 500)],
    "COREFLOW_JOURNAL_DAYS": [("7", 7)],
    "COREFLOW_UPDATE": [("recreate", "recreate"), ("ROLLING", "rolling")],
    "COREFLOW_PRUNE": [
        *((text, True) for text in ("true", "1", "yes", "on", "TRUE")),
        *((text, False) for text in ("false", "0", "no", "off", "False")),
    ],
    "COREFLOW_CONFIRM_REMOVAL": [("4f2a", "4f2a")],
    "COREFLOW_LOG_FORMAT": [("auto", "auto"), ("console", "console"), ("json", "json")],
    "COREFLOW_LOG_LEVEL": [(level, level) for level in ("debug", "info", "warning", "error")],
}
BAD: dict[str, list[str]] = {
    "CLOUDLY_URL": [
        "cloudly.example.com",
        "ftp://cloudly.example.com",
        "https://",
        "https://user:word@cloudly.example.com",
        "https://host:port",
        "https://[::1",
        "https://a b",
        "file://relative.yaml",
        "file:relative.yaml",
    ],
    "JUMPCODE": ["two words", "line\nline", "bell\a"],
    "COREFLOW_AGE_IDENTITY": ["age1x", "canary"],
    "COREFLOW_AGE_IDENTITY_FILE": ["relative"],
    "CORESTORE_API_TOKEN": [" space before", "tab\t"],
    "CORESTORE_CONTROL_URL": ["ws://store", "http://", "corestore:3000"],
    "DOCKER_HOST": [
        "/var/run/docker.sock",
        "unix://run/docker.sock",
        "unix:///",
        "tcp://host",
        "tcp://:2375",
        "tcp://host:2375/path",
        "ssh://",
        "ssh://host/path",
        "ssh://me:canary@host",
        "tcp://me@host:2375",
    ],
    "DOCKER_TLS_VERIFY": ["0", "false", "maybe"],
    "DOCKER_CERT_PATH": ["relative"],
    "DOCKER_CONFIG": ["relative", "~other/x"],
    "DOCKER_CONTEXT": ["two words"],
    "COREFLOW_LISTEN": [
        "3000",
        ":3000",
        "host:",
        "host:65536",
        "::1:3000",
        "[::g]:3000",
        "[127.0.0.1]:x",
        "256.0.0.1:3000",
        "1.2.3:3000",
        "http://host:3000",
    ],
    "COREFLOW_ADMIN_LISTEN": ["host:-1", "[1:2]:3"],
    "COREFLOW_INITIAL_DELAY": ["-1", "nan", "inf", "1e3", "10s", "1_0", "9" * 400, ".", "٣"],
    "COREFLOW_SCHEDULE": [
        "0 * * * *",
        "@hourly",
        "* * * * * * *",
        "60 * * * * *",
        "a b c d e f",
        "0 0 0 31 2 *",
        "H 0 * * * *",
    ],
    "COREFLOW_RELIST_SECONDS": ["-0.5", "minute"],
    "COREFLOW_SETTLE_SECONDS": ["-1", "3601", "long"],
    "COREFLOW_SECRET_ENVIRONMENT": ["two\nlines"],
    "COREFLOW_BASE_SERVICES": ["none", "coretraffic,other"],
    **{
        f"COREFLOW_{name.upper()}_IMAGE": ["a/UPPER", "a:b:c", "https://r.example.com/a"] for name in SERVICES
    },
    "COREFLOW_CORETRAFFIC_PUBLISH": ["both"],
    "COREFLOW_CORETRAFFIC_PEERS": ["anyone", "10.0.0.1/8", "tasks,127.0.0.0/8", ","],
    "HTTPS_PROXY": ["socks5://proxy:1080", "http://", "http://proxy:0", "http://proxy/path", "http://[::1"],
    "HTTP_PROXY": ["http://proxy:x", "ftp://proxy"],
    "NO_PROXY": ["a\x00b"],
    "COREFLOW_CLOUDLY_CA_FILE": ["ca.pem", "/etc/\x00"],
    "COREFLOW_IMAGE_LIMIT_MB": ["0", "1.5", "-1", "10M", "٣", "0x50", "1_000", "9" * 5000],
    "COREFLOW_IMAGE_TIMEOUT": ["-1", "1h"],
    "COREFLOW_MESSAGE_LIMIT_MB": ["0", "100MiB"],
    "COREFLOW_METRICS_PER_SERVICE": ["perhaps"],
    "COREFLOW_REPORT_LOGS": ["perhaps"],
    "COREFLOW_ROUTE_TASKS": ["two"],
    "COREFLOW_KEEP_ON_NODE": ["node1"],
    "COREFLOW_STRICT": ["strict"],
    "COREFLOW_STATE_DIR": ["state", "./state"],
    "COREFLOW_JOURNAL_LIMIT_MB": ["0", "1.5", "-1"],
    "COREFLOW_JOURNAL_DAYS": ["0", "week"],
    "COREFLOW_UPDATE": ["roll"],
    "COREFLOW_PRUNE": ["2", "y", "maybe"],
    "COREFLOW_CONFIRM_REMOVAL": ["a\x00b"],
    "COREFLOW_LOG_FORMAT": ["text"],
    "COREFLOW_LOG_LEVEL": ["trace"],
}


def test_every_setting_has_examples() -> None:
    """No setting can be added without good and bad values here."""
    assert sorted(GOOD) == sorted(BAD) == sorted(NAMES)


@pytest.mark.parametrize(
    ("url", "warns"),
    [
        ("http://cloudly.example.com", True),
        ("ws://10.0.0.1:3000", True),
        ("https://cloudly.example.com", False),
        ("wss://10.0.0.1", False),
        ("http://127.0.0.1:3000", False),
        ("ws://[::1]:3000", False),
        ("http://localhost", False),
        ("file:///cluster.yaml", False),
    ],
)
def test_a_token_in_the_clear_is_warned_of(tmp_path: Path, url: str, warns: bool) -> None:
    """Except on this very machine."""
    environ = {"CLOUDLY_URL": url, "JUMPCODE": "canary"}
    warnings = load_settings(environ, directory=tmp_path, secrets=tmp_path).warnings
    assert any("in the clear" in warning for warning in warnings) is warns
    assert "canary" not in str(warnings)


def test_the_table_and_the_class_agree() -> None:
    """Every row of the table has its attribute, and every attribute its row; secrets are hidden in the repr."""
    attributes = {a.name: a for a in attrs.fields(Settings) if a.name not in {"warnings", "sources"}}
    assert [setting.attribute for setting in SETTINGS] == list(attributes)
    assert {s.attribute for s in SETTINGS if s.secret} == {a.name for a in attributes.values() if not a.repr}


@pytest.mark.parametrize(("name", "text", "value"), [(n, t, v) for n in GOOD for t, v in GOOD[n]])
def test_a_good_value_is_parsed(name: str, text: str, value: object, tmp_path: Path) -> None:
    """Every way of writing a value that the docs allow gives that value."""
    settings = load(tmp_path, FILE | {"JUMPCODE": "token", name: text})
    attribute = next(setting.attribute for setting in SETTINGS if setting.name == name)
    assert getattr(settings, attribute) == value


@pytest.mark.parametrize(("name", "text"), [(name, text) for name in BAD for text in BAD[name]])
def test_a_bad_value_is_named_and_not_shown(name: str, text: str, tmp_path: Path) -> None:
    """A malformed value is one sentence with the setting and its source."""
    with pytest.raises(InvalidSetting) as caught:
        load(tmp_path, FILE | {"JUMPCODE": "token", name: text})
    (problem,) = caught.value.problems
    assert problem.startswith(f"{name} (environment) ")
    assert str(caught.value) == problem
    assert "\n" not in problem


CANARY = "canary-5d0b7c\a not usable as anything"


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", NAMES)
def test_no_value_shows_in_an_error(name: str, source: Source, tmp_path: Path) -> None:
    """Whatever is malformed, wherever it came from, no part of it is in the error or its traceback."""
    environ = {"JUMPCODE": "canary-token"} if name != "JUMPCODE" else {}
    if name != "CLOUDLY_URL":
        environ |= FILE
    environ |= source(tmp_path, name, CANARY)
    with pytest.raises(InvalidSetting) as caught:
        load(tmp_path, environ)
    exc = caught.value
    shown = [str(exc), repr(exc), *exc.warnings, *traceback.format_exception_only(exc)]
    assert name in str(exc)
    assert "canary" not in "".join(shown)
    assert exc.__context__ is None


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    """Neither the repr nor the description of settings has the value of a secret; both say the rest."""
    settings = load(tmp_path, FILE | {"JUMPCODE": "canary-a", "CORESTORE_API_TOKEN": "canary-b"})
    assert settings.jumpcode == "canary-a"
    assert "canary" not in repr(settings)
    assert "canary" not in repr(settings.describe())
    assert "cluster.yaml" in repr(settings)


def test_a_description_has_every_setting(tmp_path: Path) -> None:
    """`describe` lists name, value and source in the order of the table, with the values as one would write them."""
    environ = {
        "CLOUDLY_URL": "https://cloudly.example.com",
        "JUMPCODE": "secret",
        "COREFLOW_LISTEN": "[::1]:3000",
        "COREFLOW_PRUNE": "off",
        "COREFLOW_RELIST_SECONDS": "0",
        "COREFLOW_CORETRAFFIC_PEERS": "127.0.0.0/8,::1",
    }
    rows = load(tmp_path, environ).describe()
    assert [row.name for row in rows] == NAMES
    by_name = {row.name: row for row in rows}
    assert by_name["CLOUDLY_URL"] == Row(
        name="CLOUDLY_URL", value="https://cloudly.example.com", source="environment"
    )
    values = {
        "JUMPCODE": ("(set)", "environment"),
        "CORESTORE_API_TOKEN": ("(not set)", "not set"),
        "COREFLOW_LISTEN": ("[::1]:3000", "environment"),
        "COREFLOW_ADMIN_LISTEN": ("127.0.0.1:3001", "default"),
        "COREFLOW_PRUNE": ("false", "environment"),
        "COREFLOW_RELIST_SECONDS": ("0", "environment"),
        "COREFLOW_INITIAL_DELAY": ("10", "default"),
        "COREFLOW_CORETRAFFIC_PEERS": ("127.0.0.0/8,::1/128", "environment"),
        "COREFLOW_BASE_SERVICES": ("coretraffic,corelog,corestore", "default"),
    }
    assert {name: (by_name[name].value, by_name[name].source) for name in values} == values


def test_without_anything_the_defaults_hold(tmp_path: Path) -> None:
    """With a cluster file and nothing else, settings and options are the defaults."""
    settings = load(tmp_path)
    assert settings.render_options == RenderOptions(base=BaseOptions())
    assert settings.plan_options == PlanOptions()
    assert load(tmp_path, {**FILE, "COREFLOW_CORETRAFFIC_PEERS": "10.0.0.0/8"}).render_options.has_proxy
    assert settings.warnings == ()
    assert list(settings.sources) == ["CLOUDLY_URL"]
    assert (str(settings.listen), str(settings.admin_listen)) == ("0.0.0.0:3000", "127.0.0.1:3001")
    assert (settings.initial_delay, settings.relist_seconds) == (10.0, 60.0)
    assert settings.docker_host == "unix:///var/run/docker.sock"
    assert settings.engine_name == "unix:///var/run/docker.sock"
    assert settings.corestore_control_url == "http://corestore:3000"


def test_a_file_is_not_waited_for_unless_somebody_says_so(tmp_path: Path) -> None:
    assert load(tmp_path).first_pass_after == 0
    assert load(tmp_path, {**FILE, "COREFLOW_INITIAL_DELAY": "10"}).first_pass_after == 10
    cloudly = {"CLOUDLY_URL": "https://cloudly.example.com", "JUMPCODE": "j"}
    assert load(tmp_path, cloudly).first_pass_after == 10


def test_options_follow_the_settings(tmp_path: Path) -> None:
    """What an operator chose arrives in the options of rendering and planning."""
    settings = load(
        tmp_path,
        FILE
        | {
            "CORESTORE_API_TOKEN": "token",
            "COREFLOW_SECRET_ENVIRONMENT": "staging",
            "COREFLOW_BASE_SERVICES": "corelog",
            "COREFLOW_CORELOG_IMAGE": "registry.example.com/corelog:2",
            "COREFLOW_CORETRAFFIC_PUBLISH": "host",
            "COREFLOW_UPDATE": "recreate",
            "COREFLOW_PRUNE": "false",
            "COREFLOW_CONFIRM_REMOVAL": "4f2a",
        },
    )
    assert settings.render_options == RenderOptions(
        base=BaseOptions(
            services=("corelog",),
            images=BaseOptions().images | {"corelog": "registry.example.com/corelog:2"},  # type: ignore[operator]
            coretraffic_publish="host",
            corestore_api_token="token",
        ),
        secret_environment="staging",
    )
    assert settings.plan_options == PlanOptions(recreate=True, prune=False, confirmed="4f2a")


# what is required


def problems_of(folder: Path, environ: Mapping[str, str], **options: Any) -> tuple[str, ...]:
    with pytest.raises(InvalidSetting) as caught:
        load(folder, environ, **options)
    return caught.value.problems


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    """Without any setting, the one that is required is named, with the places to put it: a file needs no token."""
    overlay, secrets = overlay_folder(tmp_path), secrets_folder(tmp_path)
    assert problems_of(tmp_path, {}) == (
        f"CLOUDLY_URL is missing: set it in the environment, in {overlay} or as {secrets}/CLOUDLY_URL",
    )


def test_a_control_plane_asks_for_a_token(tmp_path: Path) -> None:
    """A URL of a control plane makes JUMPCODE required."""
    (problem,) = problems_of(tmp_path, {"CLOUDLY_URL": "https://cloudly.example.com"})
    assert problem.startswith("JUMPCODE is missing")


@pytest.mark.parametrize("name", ["CLOUDLY_URL", "CORESTORE_CONTROL_URL"])
def test_port_0_leads_nowhere(tmp_path: Path, name: str) -> None:
    """A URL with it is refused where it is read."""
    environ = {"CLOUDLY_URL": "https://c.example.com", "JUMPCODE": "x", name: "https://c.example.com:0"}
    (problem,) = problems_of(tmp_path, environ)
    assert "port 0" in problem


def test_a_malformed_file_url_asks_for_no_token(tmp_path: Path) -> None:
    """A URL that is wrong is one problem, without guesses about what else it would need."""
    (problem,) = problems_of(tmp_path, {"CLOUDLY_URL": "File://cluster.yaml"})
    assert problem.startswith("CLOUDLY_URL (environment) must name the cluster file by its absolute path")


def test_nothing_is_required_of_a_caller_without_cloudly(tmp_path: Path) -> None:
    """With `require_cloudly=False` both may be absent, but a bad one is still a problem."""
    settings = load(tmp_path, {}, require_cloudly=False)
    assert (settings.cloudly_url, settings.jumpcode) == (None, None)
    assert settings.describe()[0] == Row(name="CLOUDLY_URL", value="(not set)", source="not set")
    assert len(problems_of(tmp_path, {"CLOUDLY_URL": "?"}, require_cloudly=False)) == 1


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    """Several mistakes are reported together, in one line."""
    write(overlay_folder(tmp_path) / ".env", "COREFLOW_LISTEN=x\n")
    with pytest.raises(InvalidSetting) as caught:
        load(tmp_path, {"COREFLOW_PRUNE": "x"})
    names = [problem.split()[0] for problem in caught.value.problems]
    assert names == ["COREFLOW_LISTEN", "COREFLOW_PRUNE", "CLOUDLY_URL"]
    assert str(caught.value) == "; ".join(caught.value.problems)


# the overlay


IGNORED: dict[int, list[str]] = {
    1: [],
    2: [".env beside it is"],
    3: ["env.yaml and .env beside it are"],
    4: ["env.yml, env.yaml and .env beside it are"],
}
"""What the warning says when so many overlay files exist, counted from the last."""


@pytest.mark.parametrize("count", IGNORED)
def test_the_first_overlay_file_wins(count: int, tmp_path: Path) -> None:
    """Of several overlay files only the first is read, and the others are named in a warning."""
    names = OVERLAY_FILES[-count:]
    for name in names:
        text = (
            "COREFLOW_SECRET_ENVIRONMENT={}" if name == ".env" else '{{"COREFLOW_SECRET_ENVIRONMENT": "{}"}}'
        )
        write(overlay_folder(tmp_path) / name, text.format(name))
    settings = load(tmp_path)
    assert settings.secret_environment == names[0]
    used = overlay_folder(tmp_path) / names[0]
    assert settings.warnings == tuple(f"{used} is used, and {text} ignored" for text in IGNORED[count])


JSON = '{"JUMPCODE": 0123e4, "COREFLOW_PRUNE": false, "COREFLOW_INITIAL_DELAY": 2.50, "COREFLOW_UPDATE": null, "x": [1]}'
YAML = """
JUMPCODE: 0123e4  # all digits, and octal for some
COREFLOW_PRUNE: no
COREFLOW_INITIAL_DELAY: 2.50
COREFLOW_UPDATE: ~
COREFLOW_SCHEDULE: 0 30 3 * * *
x: [1]
"""
DOTENV = """\ufeff
# a comment
export JUMPCODE=0123e4 # another
  COREFLOW_PRUNE = 'false'  # and another\r
COREFLOW_INITIAL_DELAY="2.50"
COREFLOW_UPDATE=
COREFLOW_SCHEDULE=0 30 3 * * *
COREFLOW_SECRET_ENVIRONMENT="a # b"
COREFLOW_CONFIRM_REMOVAL=# nothing
"""


@pytest.mark.parametrize(
    ("name", "content"),
    [("env.json", JSON.replace("0123e4", "123e4")), ("env.yml", YAML), ("env.yaml", YAML), (".env", DOTENV)],
)
def test_scalars_of_an_overlay_are_text(name: str, content: str, tmp_path: Path) -> None:
    """Numbers come as they are written, booleans as true and false, and null as nothing at all."""
    write(overlay_folder(tmp_path) / name, content)
    settings = load(tmp_path)
    assert settings.jumpcode == ("123e4" if name == "env.json" else "0123e4")
    assert settings.prune is False
    assert settings.initial_delay == 2.5
    assert settings.update == "rolling"
    assert settings.confirm_removal is None
    if name != "env.json":
        assert settings.schedule == "0 30 3 * * *"
    if name == ".env":
        assert settings.secret_environment == "a # b"


def test_true_in_json_is_text(tmp_path: Path) -> None:
    """A JSON boolean can be the value of a boolean setting."""
    write(overlay_folder(tmp_path) / "env.json", '{"COREFLOW_PRUNE": true}')
    assert load(tmp_path, FILE).prune is True


@pytest.mark.parametrize("content", ["", "# nothing\n", "\n"])
@pytest.mark.parametrize("name", ["env.yml", ".env"])
def test_an_overlay_may_be_empty(name: str, content: str, tmp_path: Path) -> None:
    """An overlay of comments sets nothing."""
    write(overlay_folder(tmp_path) / name, content)
    assert load(tmp_path).sources == {"CLOUDLY_URL": "environment"}


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("env.json", "", "is not valid JSON in line 1"),
        ("env.json", '{\n"JUMPCODE": canary}', "is not valid JSON in line 2"),
        ("env.json", '["canary"]', "must hold a JSON object"),
        ("env.json", '{"canary": 1, "canary": 2}', "has a name twice"),
        ("env.json", "[" * 100_000, "is not valid JSON in line 1"),
        ("env.json", b'{"canary": "\xff"}', "is not text in UTF-8"),
        ("env.yml", "a: 1\nb: canary: 2", "is not valid YAML in line 2"),
        ("env.yml", "a: *canary", "is not valid YAML in line 1"),
        ("env.yml", "a: canary\x01", "is not valid YAML"),
        ("env.yml", "[" * 100_000, "is not valid YAML"),
        ("env.yml", "canary", "must hold a YAML mapping"),
        ("env.yml", "canary: 1\ncanary: 2", "has a name twice in line 2"),
        ("env.yml", "a: {b: canary}\n<<: {c: canary}", "has << in line 2: write what it brings in"),
        ("env.yml", "a: 1\n[canary]: 2", "has a name that is not text in line 2"),
        (".env", "A=1\ncanary", "must have NAME=value in line 2"),
        (".env", "\n\nA='canary", "has a quote that does not end in line 3"),
        (".env", "A='canary' canary", "has a quote that does not end in line 1"),
        (".env", "A=canary\nA=canary", "has a name twice in line 2"),
    ],
)
def test_a_malformed_overlay_is_named_by_line(
    name: str, content: str | bytes, problem: str, tmp_path: Path
) -> None:
    """A file that cannot be understood is named with the line, and without a piece of its content."""
    path = overlay_folder(tmp_path) / name
    write(path, content)
    assert problems_of(tmp_path, FILE) == (f"{path} {problem}",)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("env.json", '{"COREFLOW_UPDATE": ["canary"]}'),
        ("env.json", '{"COREFLOW_UPDATE": {"canary": 1}}'),
        ("env.yml", "COREFLOW_UPDATE:\n- canary"),
    ],
)
def test_a_value_is_a_single_one(name: str, content: str, tmp_path: Path) -> None:
    """A list or a mapping is refused as the value of a setting."""
    path = overlay_folder(tmp_path) / name
    write(path, content)
    expected = f"COREFLOW_UPDATE ({path}) must be a single value, not a list or a mapping"
    assert problems_of(tmp_path, FILE) == (expected,)


def test_folders_are_not_files(tmp_path: Path) -> None:
    """A folder with the name of an overlay or of a secret document is passed over."""
    (overlay_folder(tmp_path) / ".env").mkdir(parents=True)
    (secrets_folder(tmp_path) / "secret.json").mkdir(parents=True)
    assert load(tmp_path).sources == {"CLOUDLY_URL": "environment"}


@pytest.mark.parametrize(
    ("place", "name"),
    [("overlay", ".env"), ("overlay", "env.yaml"), ("secrets", "my-secret.json"), ("secrets", "JUMPCODE")],
)
def test_a_pipe_is_no_file(place: str, name: str, tmp_path: Path) -> None:
    """A named pipe is neither waited for nor passed over in silence."""
    path = (overlay_folder if place == "overlay" else secrets_folder)(tmp_path) / name
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    (problem,) = problems_of(tmp_path, FILE)
    assert str(path) in problem
    assert problem.endswith("cannot be read: it is a named pipe, not a file")


def test_the_null_device_hides_a_file(tmp_path: Path) -> None:
    """A link to it in the place of an overlay is an empty overlay."""
    overlay_folder(tmp_path).mkdir(parents=True)
    (overlay_folder(tmp_path) / ".env").symlink_to("/dev/null")
    assert load(tmp_path).sources == {"CLOUDLY_URL": "environment"}


# secrets


@pytest.mark.parametrize(
    ("content", "token"), [("token", "token"), ("token\n", "token"), ("token\r\n", "token")]
)
def test_one_line_break_after_a_secret_goes(content: str, token: str, tmp_path: Path) -> None:
    """The line break that an editor or `echo` puts at the end of a file is no part of a secret."""
    write(secrets_folder(tmp_path) / "JUMPCODE", content)
    assert load(tmp_path).jumpcode == token


def test_a_byte_order_mark_is_no_part_of_a_secret(tmp_path: Path) -> None:
    """Editors of Windows put it there."""
    write(secrets_folder(tmp_path) / "JUMPCODE", b"\xef\xbb\xbftoken\r\n")
    assert load(tmp_path).jumpcode == "token"


@pytest.mark.parametrize("content", ["token\n\n", "token \n", "token\r"])
def test_only_one_line_break_goes(content: str, tmp_path: Path) -> None:
    """More than that is a mistake, and said to be one."""
    write(secrets_folder(tmp_path) / "JUMPCODE", content)
    (problem,) = problems_of(tmp_path, FILE)
    assert problem.endswith("/secrets/JUMPCODE) must be one word, without spaces and line breaks")


def test_a_secret_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A file in the place of a setting that the system does not let us read is a problem, with the system's reason."""
    (secrets_folder(tmp_path) / "JUMPCODE").mkdir(parents=True)
    write(secrets_folder(tmp_path) / "CORESTORE_API_TOKEN", b"canary\xff")
    folder = secrets_folder(tmp_path)
    assert problems_of(tmp_path, FILE) == (
        f"JUMPCODE ({folder}/JUMPCODE) cannot be read: Is a directory",
        f"CORESTORE_API_TOKEN ({folder}/CORESTORE_API_TOKEN) is not text in UTF-8",
    )


def test_a_secret_that_is_not_asked_for_may_be_broken(tmp_path: Path) -> None:
    """Where an earlier source has the value, a secret file is not even opened."""
    (secrets_folder(tmp_path) / "JUMPCODE").mkdir(parents=True)
    assert load(tmp_path, FILE | {"JUMPCODE": "token"}).jumpcode == "token"


def test_folders_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    """A folder that the system refuses to look into is a problem, not an empty folder."""
    folder = tmp_path / ("x" * 300)
    with pytest.raises(InvalidSetting) as caught:
        load_settings(FILE | {"JUMPCODE": "token"}, directory=folder, secrets=tmp_path)
    assert caught.value.problems == (f"{folder}/env.json cannot be read: File name too long",)
    with pytest.raises(InvalidSetting) as caught:
        load_settings(FILE, directory=tmp_path, secrets=folder)
    assert f"{folder} cannot be read: File name too long" in caught.value.problems


def test_a_folder_may_be_a_file(tmp_path: Path) -> None:
    """Where the folders are something else there is nothing to read."""
    write(overlay_folder(tmp_path), "")
    write(secrets_folder(tmp_path), "")
    assert load(tmp_path).sources == {"CLOUDLY_URL": "environment"}


def test_secret_documents_are_asked_in_order(tmp_path: Path) -> None:
    """Several JSON secrets are read by the order of their names, and what they hold besides is ignored."""
    folder = secrets_folder(tmp_path)
    write(folder / "a-secret.json", '{"JUMPCODE": "first", "COREFLOW_OTHER": "ignored", "X": {"y": 1}}')
    write(folder / "b-secret.json", '{"JUMPCODE": "second", "CORESTORE_API_TOKEN": "token"}')
    settings = load(tmp_path)
    assert (settings.jumpcode, settings.corestore_api_token) == ("first", "token")
    assert settings.sources["CORESTORE_API_TOKEN"] == str(folder / "b-secret.json")
    assert settings.warnings == ()


def test_a_malformed_secret_document_is_named(tmp_path: Path) -> None:
    """A JSON secret that is broken stops the start: what it would have set is unknown."""
    path = secrets_folder(tmp_path) / "secret.json"
    write(path, '{"JUMPCODE": canary}')
    assert problems_of(tmp_path, FILE) == (f"{path} is not valid JSON in line 1",)


# warnings


def test_an_unknown_name_gives_a_warning(tmp_path: Path) -> None:
    """A misspelt setting is pointed out with the name that is closest to it, in the environment and in the overlay."""
    overlay = overlay_folder(tmp_path) / ".env"
    write(overlay, "COREFLOW_LISTENS=x\nOTHER=x\n")
    settings = load(
        tmp_path, FILE | {"COREFLOW_RELIST_SECOND": "5", "COREFLOW_XQZ": "x", "COREFLOW_JUMPCODE": "x"}
    )
    assert settings.warnings == (
        "COREFLOW_JUMPCODE (environment) is not a setting: did you mean JUMPCODE?",
        "COREFLOW_RELIST_SECOND (environment) is not a setting: did you mean COREFLOW_RELIST_SECONDS?",
        "COREFLOW_XQZ (environment) is not a setting",
        f"COREFLOW_LISTENS ({overlay}) is not a setting: did you mean COREFLOW_LISTEN?",
    )


def test_a_name_that_holds_its_value_is_not_shown(tmp_path: Path) -> None:
    """Without a space after the colon, a value is a part of the name."""
    (warning,) = load(tmp_path, FILE | {"COREFLOW_TOKEN:hunter2": "x"}).warnings
    assert warning.startswith("(not shown) (environment) is not a setting")


def test_the_host_goes_before_the_context(tmp_path: Path) -> None:
    """As in docker: a context counts only where no host is named."""
    context = FILE | {"DOCKER_CONTEXT": "remote"}
    assert load(tmp_path, context).engine_name == "context remote"
    assert load(tmp_path, context | {"DOCKER_HOST": "tcp://a:1"}).engine_name == "tcp://a:1"


def test_the_test_engine_gives_no_warning(tmp_path: Path) -> None:
    """The variables of the project's test engine are known not to be settings."""
    environ = {"COREFLOW_TEST_DOCKER_HOST": "x", "COREFLOW_ENGINE_DIR": "x", "COREFLOW_REQUIRE_ENGINE": "1"}
    assert load(tmp_path, FILE | environ).warnings == ()


def test_warnings_travel_with_an_error(tmp_path: Path) -> None:
    """A start that fails still tells of the names it did not know: they may be the reason."""
    with pytest.raises(InvalidSetting) as caught:
        load(tmp_path, FILE | {"COREFLOW_PRUN": "x", "COREFLOW_PRUNE": "x"})
    (warning,) = caught.value.warnings
    assert warning.endswith("did you mean COREFLOW_PRUNE?")


# the docs


def test_the_document_has_the_table() -> None:
    """docs/settings.md holds the table as the code has it; print `settings_table()` to renew it."""
    assert settings_table() in DOCUMENT.read_text()


def test_the_document_has_no_other_settings() -> None:
    """Every name in capitals in the document is a setting."""
    words = set(DOCUMENT.read_text().replace("(", " ").replace("`", " ").replace("=", " ").split())
    assert {word for word in words if word.startswith(("COREFLOW_", "CORESTORE_", "CLOUDLY_"))} - {
        "COREFLOW_"
    } <= set(NAMES)


def test_proxies(tmp_path: Path) -> None:
    """In upper or lower case, upper first; as `host:port`, too. They are secrets, since they may hold a password."""
    environ = {
        **FILE,
        "https_proxy": "http://lower:1",
        "HTTPS_PROXY": "http://user:p%40ss@proxy:3128",
        "http_proxy": "proxy:3128",
        "no_proxy": "a.example.com, 10.0.0.1",
    }
    settings = load_settings(environ, directory=tmp_path, secrets=tmp_path)
    assert (settings.https_proxy, settings.http_proxy) == (environ["HTTPS_PROXY"], "http://proxy:3128")
    assert settings.no_proxy == "a.example.com, 10.0.0.1"
    assert settings.proxy_secrets == ("p%40ss", "p@ss")
    assert "p%40ss" not in str(settings.describe()) + repr(settings)
