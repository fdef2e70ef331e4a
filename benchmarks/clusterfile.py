"""A large cluster file: the same one for the same numbers, on every machine.

Made to look like what a control plane sends for a company with many services: an image with a few versions, a secret
bundle with groups of its own and one that a team shares, a few domains, variables, limits, and now and then volumes,
bind mounts, a registry target or a health check; and members that coreflow ignores.
"""

import copy
import hashlib
import json
import random
from typing import Any

CLUSTER = "cluster-bench"
REGISTRIES = 4
SHARED_BUNDLES = 50
_WORDS = [
    "account",
    "audit",
    "basket",
    "billing",
    "booking",
    "catalog",
    "checkout",
    "content",
    "customer",
    "delivery",
    "export",
    "feed",
    "gateway",
    "import",
    "invoice",
    "ledger",
    "mail",
    "media",
    "order",
    "payment",
    "pricing",
    "profile",
    "report",
    "search",
    "session",
    "shop",
    "stock",
    "support",
    "tracking",
]
_ENVIRONMENTS = ("production", "staging")

Json = dict[str, Any]


def _hex(*parts: object, digits: int = 12) -> str:
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:digits]


def cluster_document(services: int, seed: int = 1) -> Json:
    """The document: what Cloudly's methods answer, side by side."""
    rng = random.Random(seed)
    document: Json = {
        "configData": {
            "id": CLUSTER,
            "data": {
                "name": "bench",
                "cloudlyUrl": "https://cloudly.example.com",
                "setupMode": "manual",
                "nodes": [
                    {
                        "id": f"node-{n}",
                        "data": {"role": "manager", "swarmNodeId": _hex("node", n, digits=25)},
                    }
                    for n in range(3)
                ],
            },
        },
        "services": [],
        "images": [],
        "externalRegistries": [_registry(number) for number in range(REGISTRIES)],
        "secretBundles": [],
        "secretGroups": [],
    }
    for number in range(SHARED_BUNDLES):
        _add_bundle(document, rng, f"bundle-team-{number:02}", None, 6)
    for number in range(services):
        _add_service(document, rng, number)
    return document


def _registry(number: int) -> Json:
    return {
        "id": f"registry-{number}",
        "data": {
            "type": "docker",
            "name": f"Registry {number}",
            "url": f"https://registry-{number}.example.com",
            "username": "deployer",
            "password": _hex("password", number, digits=24),
            "status": "active",
            "createdAt": 1_726_000_000_000 + number,
        },
    }


def _add_bundle(document: Json, rng: random.Random, identity: str, service: str | None, groups: int) -> None:
    ids = [f"{identity}-group-{index}" for index in range(groups)]
    document["secretBundles"].append(
        {
            "id": identity,
            "data": {
                "name": identity.replace("-", " ").title(),
                "description": "",
                "type": "service" if service else "external",
                **({"serviceId": service} if service else {}),
                "includedSecretGroupIds": ids,
                "includedTags": [],
                "includedImages": [],
                "authorizations": [],
            },
        }
    )
    for index, group in enumerate(ids):
        document["secretGroups"].append(
            {
                "id": group,
                "data": {
                    "name": f"Variable {index} of {identity}",
                    "description": "",
                    "key": f"{rng.choice(_WORDS).upper()}_{rng.choice(('KEY', 'TOKEN', 'URL', 'USER'))}_{index}",
                    "priority": 0,
                    "tags": [{"key": "team", "value": rng.choice(_WORDS)}] if index == 0 else [],
                    "environments": {
                        name: {
                            "value": _hex(group, name, digits=32),
                            "lastUpdated": 1_726_000_000_000 + rng.randrange(10**9),
                        }
                        for name in _ENVIRONMENTS
                    },
                },
            }
        )


def _add_service(document: Json, rng: random.Random, number: int) -> None:
    name = f"{rng.choice(_WORDS)}-{rng.choice(_WORDS)}-{number:05}"
    service, image, bundle = f"service-{_hex(name)}", f"image-{_hex('image', name)}", f"bundle-{name}"
    versions = [f"{major}.{rng.randrange(30)}.{rng.randrange(10)}" for major in (3, 4)]
    internal = number % 10 == 0
    document["images"].append(
        {
            "id": image,
            "data": {
                "name": name,
                "description": f"The {name} service",
                "location": (
                    {"internal": True}
                    if internal
                    else {
                        "internal": False,
                        "externalRegistryId": f"registry-{number % REGISTRIES}",
                        "externalImageTag": f"registry-{number % REGISTRIES}.example.com/team/{name}",
                    }
                ),
                "versions": [
                    {
                        "versionString": version,
                        "storagePath": f"images/{name}/{version}.tar",
                        "size": rng.randrange(10**7, 10**9),
                        "createdAt": 1_726_000_000_000 + rng.randrange(10**9),
                    }
                    for version in versions
                ],
            },
        }
    )
    _add_bundle(document, rng, bundle, service, 3)
    data: Json = {
        "name": name,
        "description": f"{name}: one of many",
        "imageId": image,
        "imageVersion": versions[-1],
        "environment": {
            "NODE_ENV": "production",
            "LOG_LEVEL": rng.choice(("info", "warn", "debug")),
            "PUBLIC_URL": f"https://{name}.example.com",
            **{
                f"{word.upper()}_ENDPOINT": f"http://{word}.internal:{rng.randrange(3000, 9000)}/api/v{rng.randrange(1, 4)}"
                for word in rng.sample(_WORDS, 4)
            },
        },
        "secretBundleId": bundle,
        "additionalSecretBundleIds": [f"bundle-team-{rng.randrange(SHARED_BUNDLES):02}"],
        "serviceCategory": "workload",
        "deploymentStrategy": "custom",
        "scaleFactor": rng.choice((1, 1, 2, 3)),
        "balancingStrategy": "round-robin",
        "ports": {"web": rng.randrange(3000, 9000)},
        "resources": {
            "memorySizeLimitMB": rng.choice((256, 512, 1000)),
            "memorySizeReservationMB": 128,
            "cpuLimit": rng.choice((0.5, 1, 2)),
        },
        "domains": [
            {"name": f"{prefix}{name}.example.com", "protocol": "https"}
            for prefix in ("", "www.")[: 1 + number % 2]
        ],
        "deploymentIds": [f"deployment-{_hex('deployment', name, index)}" for index in range(2)],
    }
    if number % 3 == 0:
        data["volumes"] = [
            {
                "mountPath": f"/data/{index}",
                "driver": "corestore",
                "backup": True,
                "options": {"quota": "10G"},
            }
            for index in range(1 + number % 2)
        ]
    if number % 5 == 0:
        data["resources"]["volumeMounts"] = [
            {"hostFsPath": "/etc/ssl/certs", "containerFsPath": "/etc/ssl/certs"}
        ]
    if number % 4 == 0:
        data["ports"]["custom"] = {f"admin.{name}.example.com": str(rng.randrange(9000, 9999))}
    if number % 7 == 0:
        data["healthCheck"] = {
            "command": ["curl", "-f", "http://localhost:3000/health"],
            "intervalSeconds": 10,
            "retries": 3,
        }
    if number % 6 == 1:
        data["registryTarget"] = {
            "protocol": "oci",
            "registryHost": "registry-0.example.com",
            "repository": f"team/{name}",
            "tag": versions[-1],
        }
    document["services"].append({"id": service, "data": data})


def changed(document: Json, share: float, new: int = 0) -> Json:
    """The same document with a share of its services changed, evenly spread, and `new` more services.

    A third of the changes is another image version, a third another variable, a third another secret value.
    """
    document = copy.deepcopy(document)
    count = len(document["services"])
    groups = {group["id"]: group["data"] for group in document["secretGroups"]}
    for turn, index in enumerate(range(0, count, round(1 / share))):
        data = document["services"][index]["data"]
        match turn % 3:
            case 0 if "registryTarget" not in data:
                data["imageVersion"] = document["images"][index]["data"]["versions"][0]["versionString"]
            case 1:
                group = groups[f"{data['secretBundleId']}-group-0"]
                group["environments"]["production"]["value"] = _hex("changed", index, digits=32)
            case _:
                data["environment"]["LOG_LEVEL"] = "changed"
    rng = random.Random(count)
    for number in range(count, count + new):
        _add_service(document, rng, number)
    return document


def as_bytes(document: Json) -> bytes:
    """The file, with the indentation that a person would want."""
    return json.dumps(document, ensure_ascii=False).encode()
