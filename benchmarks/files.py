"""The cost of a cluster file, from reading it to what is shown: `plan` and `routes`, a quarter of the file against the whole.

Every figure is user CPU time of a process of its own, the median of rounds in which all cases take turns. The reference
is what nobody can do without: `json.loads` of the same services, and parsing each certificate and key with `cryptography`.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import orjson
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from rich.console import Console

from benchmarks.table import Row
from coreflow.adapters.file import FileCloudly
from coreflow.app.certificates import LOOKUPS, find_certificate
from coreflow.app.cli.present import Block, plan_blocks, print_blocks
from coreflow.domain.deploy.base import BaseOptions
from coreflow.domain.deploy.desired import RenderOptions
from coreflow.domain.deploy.plan import make_plan
from coreflow.domain.deploy.render import Renderer
from coreflow.domain.records.models import Records
from coreflow.domain.swarm.images import ResolvedImage
from coreflow.domain.swarm.observed import Observed
from coreflow.gc_pause import gc_paused

SERVICES, HOSTS = 20_000, 5_000
ROUNDS = 3
LINEAR_LIMIT = 1.3
"""How much more a service or host of the whole may cost than one of a quarter."""
PLAN_LIMIT, ROUTES_LIMIT = 50.0, 20.0
"""In units of the reference."""
MEMORY_LIMIT = 350.0
"""MB at the peak."""
_DIGEST = "sha256:" + "a" * 64


def _services(number: int) -> dict[str, Any]:
    services = [
        {
            "id": f"svc-{n}",
            "data": {
                "name": f"svc{n}",
                "registryTarget": {"imageUrl": "registry.example.com/web:1"},
                "ports": {"web": 8080},
                "domains": [{"name": f"h{n}.example.com"}],
                "environment": {"LEVEL": "info", "REGION": "eu-1", "NAME": f"service {n}"},
                "resources": {"memorySizeLimitMB": 64 + n % 50},
            },
        }
        for n in range(number)
    ]
    return {"configData": {"id": "bench", "data": {"name": "bench"}}, "services": services}


def _hosts(number: int) -> dict[str, Any]:
    names = [f"h{n}.example.com" for n in range(number)]
    document = _services(1)
    document["services"][0]["data"]["domains"] = [{"name": name} for name in names]
    document["certificates"] = {name: _certificate(name) for name in names}
    return document


def _certificate(host: str) -> dict[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    chain = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=90))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = chain.public_bytes(serialization.Encoding.PEM)
    return {"domainName": host, "privateKey": private.decode(), "publicKey": public.decode()}


# in a process of its own


def _load(path: Path) -> None:
    json.loads(path.read_bytes())


def _parse(path: Path) -> None:
    for one in orjson.loads(path.read_bytes())["certificates"].values():
        x509.load_pem_x509_certificate(one["publicKey"].encode())
        serialization.load_pem_private_key(one["privateKey"].encode(), password=None)


async def _read(cloudly: FileCloudly) -> Records:
    return await cloudly.records()


def _plan(path: Path) -> None:
    records = trio.run(_read, FileCloudly(path))
    renderer = Renderer(RenderOptions(base=BaseOptions(services=())))
    observed = Observed()
    with gc_paused(enabled=True):
        answers = {request: ResolvedImage(_DIGEST) for request in renderer.image_requests(records, observed)}
        plan = make_plan(renderer.render(records, observed, answers), observed)
        blocks: tuple[Block, ...] = tuple(plan_blocks(plan))
        print_blocks(Console(file=StringIO()), blocks)
    assert len(plan.steps) >= len(records.services)


def _routes(path: Path) -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC).timestamp()
    cloudly = FileCloudly(path)

    async def some(hosts: Iterator[str]) -> None:
        for host in hosts:
            await find_certificate(host, cloudly, None, lambda: now)

    async def ask() -> None:
        hosts = iter((await cloudly.records()).certificates)
        async with trio.open_nursery() as nursery:
            for _ in range(LOOKUPS):
                nursery.start_soon(some, hosts)

    trio.run(ask)


_JOBS: Mapping[str, Callable[[Path], None]] = {
    "json.loads": _load,
    "cryptography": _parse,
    "plan": _plan,
    "routes": _routes,
}


def _measured(job: str, path: Path) -> tuple[float, float]:
    """CPU seconds of a job, without what Python takes to begin, and the peak of memory in MB."""
    command = [sys.executable, "-m", "benchmarks.files", job, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, peak = done.stdout.split()
    return float(seconds), float(peak)


def _case(
    folder: Path, reference: str, job: str, made: Callable[[int], dict[str, Any]], number: int
) -> list[Row]:
    """A job on a quarter and on the whole, and its reference."""
    whole, quarter, as_json = folder / f"{job}.yaml", folder / f"{job}-quarter.yaml", folder / f"{job}.json"
    document = made(number)
    as_json.write_bytes(orjson.dumps(document))
    whole.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))  # JSON is YAML, too
    quarter.write_bytes(orjson.dumps(made(number // 4), option=orjson.OPT_INDENT_2))
    found: dict[str, list[tuple[float, float]]] = {"reference": [], "quarter": [], "whole": []}
    for _ in range(ROUNDS):
        found["reference"].append(_measured(reference, as_json))
        found["quarter"].append(_measured(job, quarter))
        found["whole"].append(_measured(job, whole))
    unit, part, all_ = (
        statistics.median(s for s, _ in found[name]) for name in ("reference", "quarter", "whole")
    )
    peak = max(megabytes for _, megabytes in found["whole"])
    limit = PLAN_LIMIT if job == "plan" else ROUTES_LIMIT
    return [
        Row(case=reference, milliseconds=unit * 1000, ratio=1.0, note=f"{number} of them: the reference"),
        Row(case=job, milliseconds=all_ * 1000, ratio=all_ / unit, limit=limit, note="from a YAML file"),
        Row(
            case="  linear",
            milliseconds=part * 1000,
            ratio=all_ / part / 4,
            limit=LINEAR_LIMIT,
            note="a quarter; the ratio is the whole in units of four quarters",
        ),
        Row(
            case="  memory",
            milliseconds=all_ * 1000,
            ratio=peak / MEMORY_LIMIT,
            limit=1.0,
            note=f"{peak:.0f} MB at the peak, in units of {MEMORY_LIMIT:.0f} MB",
        ),
    ]


def run() -> list[Row]:
    """Measure; one row per figure."""
    with tempfile.TemporaryDirectory(prefix="coreflow-benchmark-") as name:
        folder = Path(name)
        return [
            *_case(folder, "json.loads", "plan", _services, SERVICES),
            *_case(folder, "cryptography", "routes", _hosts, HOSTS),
        ]


if __name__ == "__main__":
    started = time.process_time()
    _JOBS[sys.argv[1]](Path(sys.argv[2]))
    taken = time.process_time() - started
    sys.stdout.write(f"{taken} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000}\n")
