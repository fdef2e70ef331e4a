"""Corestore in memory: credentials are derived from a service's id and the capability, as in the real one."""

from collections import Counter, deque
from collections.abc import Mapping
from hashlib import sha256

import trio

from coreflow.domain.bindings import BindingSpec, Endpoint, Provisioned
from coreflow.domain.errors import PortError, Refused
from coreflow.domain.ids import ServiceId

HOST, REGION = "corestore", "us-east-1"


class MemoryCorestore:
    """`CorestorePort` without any data behind it.

    `held` are the service ids and capabilities that are provisioned now, `deprovisioned` the bindings that were given
    back, whether they were there or not. The errors in `faults` are raised first, one per call of any method.
    `counts` has the calls by method, those that failed included.
    """

    def __init__(self) -> None:
        self.held: set[tuple[ServiceId, str]] = set()
        self.deprovisioned: list[BindingSpec] = []
        self.faults: deque[PortError] = deque()
        self.counts: Counter[str] = Counter()
        self._turns: Counter[ServiceId] = Counter()

    def rotate(self, service_id: ServiceId) -> None:
        """Change the credentials of a service, as when the master secret is lost."""
        self._turns[service_id] += 1

    async def provision(self, spec: BindingSpec) -> Provisioned:
        """Make what a binding wants, or find it. Raises Refused for a capability that is not known."""
        await self._call("provision")
        make = {"database": _database, "objectstorage": _storage}.get(spec.capability)
        if make is None:
            raise Refused(f"corestore: provision {spec.name}: no such capability")
        seed = f"{self._turns[spec.service_id]}\0{spec.service_id}\0{spec.capability}"
        self.held.add((spec.service_id, spec.capability))
        return make(sha256(seed.encode()).hexdigest())

    async def deprovision(self, spec: BindingSpec) -> None:
        """Give it back. Gone already is success."""
        await self._call("deprovision")
        self.held.discard((spec.service_id, spec.capability))
        self.deprovisioned.append(spec)

    async def _call(self, method: str) -> None:
        await trio.lowlevel.checkpoint()
        self.counts[method] += 1
        if self.faults:
            raise self.faults.popleft()


def _database(digest: str) -> Provisioned:
    name, user, word = f"db-{digest[:8]}", f"user-{digest[8:16]}", digest[16:48]
    values = {"MONGODB_URI": f"mongodb://{user}:{word}@{HOST}:27017/{name}?authSource={name}"}
    return _provisioned(values, "database", "mongodb", 27017)


def _storage(digest: str) -> Provisioned:
    values = {
        "AWS_ACCESS_KEY_ID": digest[8:28].upper(),
        "AWS_ENDPOINT_URL": f"http://{HOST}:9000",
        "AWS_REGION": REGION,
        "AWS_SECRET_ACCESS_KEY": digest[24:64],
        "S3_BUCKET": f"bucket-{digest[:8]}",
    }
    return _provisioned(values, "objectstorage", "http", 9000)


def _provisioned(values: Mapping[str, str], capability: str, protocol: str, port: int) -> Provisioned:
    endpoint = Endpoint(name=capability, protocol=protocol, host=HOST, port=port)
    return Provisioned(values=values, endpoints=(endpoint,))
