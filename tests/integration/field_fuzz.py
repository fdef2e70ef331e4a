"""Service records and raw specs with extremes in every field, from a seed.

Most of a record is sensible; a few fields are not. What is extreme may be wrong: the plan decides, and what it accepts the
engine must accept, too.
"""

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from tests.integration.engine_bench import GOOD, Json

Choice = Callable[[Random], Any]
MAX = 2**63 - 1
DIGEST = "sha256:" + "0123456789abcdef" * 4
TEXTS: tuple[str, ...] = (
    "", " ", "x", "\0", "a\0b", "\n", "a\nb", "\t", "\x01\x7f", "\x1b[31m", "=", "a=b", ",", "'", '"', "\\", "$HOME", "$$", "`id`", "%s",
    "{{", "}}", "{{{", "{{ x }}", "{{.Service.Name}}", "{{.Bad}}", '{{"{{"}}', "{{-", "{{/* c */}}", "a{{b", "{{`x`}}",
    "é", "e\u0301", "😀", "\u202e", "\ufeff", "\u0000x", "ß", "İ", "x" * 255, "x" * 256, "x" * 5000, "null", "true", "0", "-1", "~", "#", "<&>", "../..", "/", "//",
)  # fmt: skip
NUMBERS: tuple[Any, ...] = (
    0, -0.0, 1, -1, 2, 0.5, 1e-12, -1e-12, 0.001, 0.01, 0.009999999, 1.5, 4, 4.194303, 4.194304, 4.2, 6, 6.291456, 6.3, 100, 1000, 1e6, 1e9, 1e12,
    2**31 - 1, 2**31, 2**32 + 1, 2**53, MAX, 2**63, 2.0**64, 1e300, 1.7e308,
)  # fmt: skip
DURATIONS: tuple[Any, ...] = (*NUMBERS, 1e-9, 0.0009, 0.0011, 999_999_999, 1e9, 1e10)
PATHS: tuple[str, ...] = (
    "/data", "/data/", "//data", "/./data", "/data/../data", "/a/b/c", "/a/../../b", "", "data", ".", "..", "/", "//", "/.", "/..", "/data\0", "/a\nb", "/a b",
    "/a:b", "/a,b", "/ä😀", "/a{{b", "/{{.Service.Name}}", "/proc", "/proc/x", "/x/../proc/1", "/dev", "/dev/shm", "/sys", "/sys/fs", "/etc/hosts", "/etc/hostname",
    "/etc/resolv.conf", "/.dockerenv", "/run", "/run/secrets", "/run/secrets/x", "/tmp", "/" + "a" * 255, "/" + "a" * 256, "/a" * 1900, "/a" * 1901, "/" + "ä" * 127,
)  # fmt: skip
COMMANDS: tuple[Any, ...] = (
    "", " ", "\n", "true", "exit 0", "#", "# x\ntrue", "a\0b", "NONE", "CMD", "CMD true", "none", "true {{ x }}", [], [""], ["", "true"], ["CMD"], ["CMD", ""],
    ["CMD", " "], ["CMD", "true"], ["CMD", "true", ""], ["CMD-SHELL"], ["CMD-SHELL", ""], ["CMD-SHELL", "true"], ["CMD-SHELL", "a", "b"], ["NONE"], ["NONE", "x"],
    ["NONE", "NONE"], ["true"], ["true", "{{.Bad}}"], ["cmd", "x"], ["true", "\0"], "true " + "x" * 131_072, ["true", "x" * 131_071], ["true", "x" * 131_072],
    ["true", *["x"] * 1000],
)  # fmt: skip
REFERENCES: tuple[str, ...] = (
    GOOD, f"shop@{DIGEST}", f"r.example.com/shop@{DIGEST}", f"r.example.com:5000/a/b/c@{DIGEST}", f"localhost/shop:1@{DIGEST}", f"a_b/c__d/e-f@{DIGEST}",
    f"{'a' * 200}@{DIGEST}", f"shop:{'t' * 128}@{DIGEST}", f"shop:{'t' * 129}@{DIGEST}", f"{{{{.Bad}}}}@{DIGEST}", f" shop@{DIGEST}",
    f"shop@{DIGEST.upper()}", f"shop@{DIGEST}x", f"ä@{DIGEST}", f"a//b@{DIGEST}", f"/a@{DIGEST}", f"a\0@{DIGEST}",
)  # fmt: skip
NAMES: tuple[str, ...] = (
    "",
    "A",
    "_a",
    "a_b",
    "a--b",
    "a.b",
    "-",
    "a b",
    "é",
    "a\n",
    "{{x}}",
    "0",
    "{long}",
    "{longer}",
)
HOSTS: tuple[str, ...] = (
    "a.example.com", "A.example.com", "a.example.com.", "*.example.com", "*", "a.*.com", "", ".", "a..b", "localhost", "ä.example.com", "xn--4ca.example.com", "xn--",
    "😀.example.com", "a_b.example.com", "-a.example.com", "127.0.0.1", "[::1]", "a.example.com:80", "https://a.example.com", "{{x}}.example.com", "a\0b.com", "a b.com",
    "x" * 63 + ".com", "x" * 64 + ".com", "x." * 126 + "x", "x." * 127 + "x", "\u202e.com", "ß.example.com", "İ.example.com",
)  # fmt: skip
REGISTRIES: tuple[str, ...] = (
    "r.example.com", "r.example.com:5000", "r.example.com:5000/a", "https://r.example.com/", "localhost", "", "x", "a_b.com", "-a.com", "a..b", "{{x}}.com", "a b.com", "ä.com", "a\0.com",
)  # fmt: skip
"""Without capital letters, brackets and great length: with those, engines differ in what they look up."""
PORTS = (None, None, 0, 1, 80, 65_535, 65_536, -1)
OPTIONS: tuple[str, ...] = ("type", "device", "o", "size", "uid", "", "{{x}}", "Type")
DRIVERS: tuple[str, ...] = (
    "",
    "local",
    "corestore",
    "Local",
    "vieux/sshfs:latest",
    "{{.Bad}}",
    "a b",
    "\0",
    "é",
    "x" * 300,
)


def _some(random: Random, make: Choice, most: int = 3) -> list[Any]:
    return [make(random) for _ in range(random.randint(0, most))]


def _text(random: Random) -> str:
    return "".join(random.choice(TEXTS) for _ in range(random.choice((1, 1, 1, 2, 3))))


def _texts(random: Random) -> Json:
    return {_text(random)[:300]: _text(random) for _ in range(random.randint(0, 4))}


def _environment(random: Random) -> Json:
    large = random.random()
    if large < 0.03:
        return {"A": "x" * random.choice((131_069, 131_070, 200_000))}
    if large < 0.05:
        return {f"A{number}": "x" * 50_000 for number in range(random.choice((13, 14, 30)))}
    return _texts(random)


def _volume(random: Random) -> Json:
    volume: Json = {"mountPath": random.choice(PATHS)}
    makers: Mapping[str, Choice] = {
        "name": lambda r: r.choice((*TEXTS, "data", "Data", "a", "a.b-c_d", "x" * 255, "x" * 256)),
        "driver": lambda r: r.choice(DRIVERS),
        "readOnly": lambda r: r.random() < 0.5,
        "backup": lambda r: r.random() < 0.5,
        "options": lambda r: {r.choice(OPTIONS): r.choice(TEXTS) for _ in range(r.randint(0, 2))},
    }
    for key, make in makers.items():
        if random.random() < 0.4:
            volume[key] = make(random)
    return volume


def _bind(random: Random) -> Json:
    return {"hostFsPath": random.choice(PATHS), "containerFsPath": random.choice(PATHS)}


def _resources(random: Random) -> Json:
    measures = ("memorySizeLimitMB", "memorySizeReservationMB", "memorySizeMB", "cpuLimit", "cpuReservation")
    found: Json = {name: random.choice(NUMBERS) for name in random.sample(measures, random.randint(0, 2))}
    if random.random() < 0.5:
        found["volumeMounts"] = _some(random, _bind)
    return found


def _health(random: Random) -> Json:
    times = ("intervalSeconds", "timeoutSeconds", "startPeriodSeconds")
    check: Json = {"command": random.choice(COMMANDS)}
    check |= {name: random.choice(DURATIONS) for name in random.sample(times, random.randint(0, 2))}
    if random.random() < 0.3:
        check["retries"] = random.choice([number for number in NUMBERS if float(number).is_integer()])
    return check


def _login(random: Random) -> Json:
    address = random.choice(("r.example.com", "https://r.example.com/v1/", "r.example.com:5000", *TEXTS))
    return {"serveraddress": address, "username": _text(random), "password": _text(random)}


def _target(random: Random) -> Json:
    """An image by its reference, or in parts; the digest makes sure that nobody has to be asked."""
    target: Json = {"imageUrl": random.choice(REFERENCES)}
    if random.random() < 0.4:
        makers: Mapping[str, Choice] = {
            "registryHost": lambda r: r.choice(REGISTRIES),
            "repository": lambda r: r.choice(("team/app", "a" * 200, "A", "", "/", "a//b", "ä", "{{x}}", "a__b/c.d-e")),
            "digest": lambda r: r.choice((DIGEST, DIGEST, DIGEST.upper(), "x")),
            "tag": lambda r: r.choice(("1", "t" * 128, "t" * 129, "", "ä", "{{x}}")),
        }  # fmt: skip
        target = {key: make(random) for key, make in makers.items() if key != "tag" or random.random() < 0.5}
    if random.random() < 0.5:
        target["registryInfo"] = _login(random)
    return target


def _domain(random: Random) -> Any:
    host = random.choice(HOSTS)
    if random.random() < 0.3:
        return host
    domain: Json = {"name": host, "protocol": random.choice((None, "https", "ssh", "SSH", ""))}
    return domain | {"port": random.choice(PORTS)}


def _ports(random: Random) -> Json:
    custom = {random.choice(HOSTS): random.choice((80, "80", "080", "", "x", "65536", 0, "٨")) for _ in range(random.randint(0, 2))}  # fmt: skip
    return {"web": random.choice(PORTS), "custom": custom}


FIELDS: Mapping[str, Choice] = {
    "environment": _environment,
    "volumes": lambda random: _some(random, _volume),
    "resources": _resources,
    "healthCheck": _health,
    "registryTarget": _target,
    "imageId": lambda random: random.choice(("external", "open", "nowhere", "nothing", "", None)),
    "maxReplicas": lambda random: random.choice((0, -1, 2**31, 2**63)),
    "antiAffinity": lambda random: random.random() < 0.5,
    "serviceCategory": lambda random: random.choice(("workload", "", None)),
    "deploymentStrategy": _text,
    "imageVersion": _text,
    "ports": _ports,
    "domains": lambda random: _some(random, _domain),
    "secretBundleId": lambda random: random.choice(("bundle", "large", "larger", "nowhere", None)),
    "additionalSecretBundleIds": lambda random: _some(random, lambda r: r.choice(("bundle", "bundle", "large", "larger"))),
}  # fmt: skip
"""Every field that ends in what is sent to the engine, besides id, name and number of tasks, and some that do not."""


def record(random: Random, prefix: str, number: int) -> Json:
    """A record without tasks, extreme in some fields. Its name begins with the prefix, as far as it is one."""
    name = f"{prefix}-{number}"
    identity = name
    if random.random() < 0.15:
        ending = random.choice(NAMES)
        room = 63 - len(name)
        name += {"{long}": "x" * room, "{longer}": "x" * (room + 1)}.get(ending, ending)
    if random.random() < 0.15:
        identity += random.choice(TEXTS)
    data: Json = {"name": name, "registryTarget": {"imageUrl": GOOD}, "scaleFactor": 0}
    for field in random.sample(sorted(FIELDS), random.choice((1, 1, 2, 2, 3, 4))):
        data[field] = FIELDS[field](random)
    if data.get("imageId") is not None:
        del data["registryTarget"]
    return {"id": identity, "data": data}


def running_record(random: Random, prefix: str, number: int) -> Json:
    """A record of one task, extreme only in what does not depend on the image or on what the node has."""
    found = record(random, prefix, number)
    data = found["data"]
    data |= {"scaleFactor": 1, "registryTarget": {"imageUrl": GOOD}, "maxReplicas": None}
    resources = data.get("resources") or {}
    resources.pop("cpuReservation", None)
    resources.pop("memorySizeReservationMB", None)
    resources["volumeMounts"] = [
        {"hostFsPath": random.choice(("/tmp", "/tmp/", "//tmp/.", "/tmp/x/..")), "containerFsPath": bind["containerFsPath"]}
        for bind in resources.get("volumeMounts") or ()
        if bind["containerFsPath"] not in {*_FILES, "/sys", "/sys/fs"}
    ]  # fmt: skip
    data["resources"] = resources
    for volume in data.get("volumes") or ():
        volume["driver"] = "local"
        volume["options"] = random.choice(
            ({}, {"type": "tmpfs", "device": "tmpfs"}, {"type": "none", "device": "/tmp", "o": "bind"}, {"uid": "1"})
        )  # fmt: skip
        if volume.get("name"):
            volume["name"] = f"{prefix}{number}{volume['name']}"
    check = data.get("healthCheck")
    if check:  # what fails is the image's affair
        check |= {"intervalSeconds": 1000, "timeoutSeconds": 100}
    return found


_FILES = {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/.dockerenv"}


def document(cluster: str, services: list[Json]) -> Json:
    """A cluster with these services, and secrets of extreme sizes and contents."""
    values = {"a": "x", "b": "".join(TEXTS), "c": "x" * 499_000, "d": "x" * 500_000}
    groups = [
        {"id": key, "data": {"key": f"K{key}\0{{{{", "environments": {"production": {"value": value}}}}
        for key, value in values.items()
    ]
    bundles = {"bundle": ["a", "b"], "large": ["c"], "larger": ["d"]}
    return {
        "configData": {"id": cluster, "data": {"name": cluster}},
        "services": services,
        "images": [
            {
                "id": "external",
                "data": {
                    "location": {
                        "internal": False,
                        "externalRegistryId": "r",
                        "externalImageTag": f"a/b@{DIGEST}",
                    }
                },
            },
            {"id": "open", "data": {"location": {"internal": False, "externalImageTag": f"shop:1@{DIGEST}"}}},
            {"id": "nothing", "data": {"location": {"internal": False, "externalImageTag": "{{x}}"}}},
        ],
        "externalRegistries": [
            {
                "id": "r",
                "data": {
                    "type": "docker",
                    "url": "https://r.example.com",
                    "username": "ü:\0",
                    "password": TEXTS[-1] * 3000,
                },
            }
        ],
        "secretGroups": groups,
        "secretBundles": [
            {"id": key, "data": {"includedSecretGroupIds": ids}} for key, ids in bundles.items()
        ],
    }


# what no plan lets through


def _mount(random: Random) -> Json:
    mount: Json = {
        "Type": random.choice(("volume", "volume", "bind")),
        "Source": random.choice((*TEXTS, *PATHS)),
        "Target": random.choice(PATHS),
    }
    if mount["Type"] == "volume" and random.random() < 0.5:
        mount["VolumeOptions"] = {
            "Labels": _texts(random),
            "DriverConfig": {"Name": random.choice(DRIVERS), "Options": _texts(random)},
        }
    return mount


def _raw_health(random: Random) -> Json:
    check: Json = {"Test": _some(random, lambda r: r.choice(("CMD", "CMD-SHELL", "NONE", *TEXTS)))}
    whole = (0, 1, -1, 999_999, 1_000_000, 2**31 - 1, 2**31, 2**32 + 7, MAX, MAX + 1)
    keys = random.sample(("Interval", "Timeout", "StartPeriod", "Retries"), random.randint(0, 2))
    return check | {key: random.choice(whole) for key in keys}


_AMOUNTS = (0, 1, -1, 999_999, 10**6, 10**7, 4 * 2**20 - 1, 4 * 2**20, 6 * 2**20, MAX, MAX + 1)
_CONSTRAINTS = (
    "",
    "node.id",
    "node.id==",
    "node.id==x",
    "node.id != x y",
    "node.id==é",
    "node.id=={{x}}",
    "node.id==a\0",
    "==",
    "node.role==manager",
)


def raw_spec(random: Random, prefix: str, number: int) -> Json:
    """What the engine is sent, extreme in a few members and checked by nobody; no task comes of it."""
    container: Json = {"Image": GOOD}
    spec: Json = {
        "Name": f"{prefix}-{number}",
        "Labels": {},
        "TaskTemplate": {"ContainerSpec": container},
        "Mode": {"Replicated": {"Replicas": 0}},
        "EndpointSpec": {"Mode": "dnsrr"},
    }
    template = spec["TaskTemplate"]

    def environment() -> None:
        container["Env"] = [f"{_text(random)}={_text(random)}" for _ in range(random.randint(1, 3))]

    def resources() -> None:
        kind, what = random.choice(("Limits", "Reservations")), random.choice(("NanoCPUs", "MemoryBytes"))
        template["Resources"] = {kind: {what: random.choice(_AMOUNTS)}}

    changes: tuple[Callable[[], Any], ...] = (
        environment,
        resources,
        lambda: container.update(Mounts=_some(random, _mount)),
        lambda: container.update(Healthcheck=_raw_health(random)),
        lambda: container.update(Image=random.choice(REFERENCES)),
        lambda: container.update(Hostname=_text(random)),
        lambda: container.update(Labels=_texts(random), Command=[_text(random)], Args=[_text(random)]),
        lambda: template.update(Placement={"Constraints": [random.choice(_CONSTRAINTS)]}),
        lambda: spec.update(Labels=_texts(random)),
        lambda: spec.update(Name=f"{prefix}-{number}" + random.choice(NAMES)),
        lambda: spec["Mode"]["Replicated"].update(Replicas=random.choice((0, -1, 2**64))),
    )
    for change in random.sample(changes, random.choice((1, 1, 2))):
        change()
    return spec
