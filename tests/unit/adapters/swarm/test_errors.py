"""What each error of an engine means: tried again, looked at again, or refused."""

from typing import Any

import pytest

from coreflow.adapters.engine.protocol import EngineError
from coreflow.adapters.memory import Fault, MemoryEngine
from coreflow.adapters.swarm.errors import (
    CHANGED,
    GOT_READY,
    NOT_A_MANAGER,
    NotAManager,
    is_conflict,
    translated,
)
from coreflow.adapters.swarm.port import SwarmPort
from coreflow.domain.errors import LostRace, PortError, Refused, Unavailable

UNKNOWN = "rpc error: code = Unknown desc = "

TRIED_AGAIN = [
    # raft
    (500, f"{UNKNOWN}raft: failed to process the request: node lost leader status"),
    (500, "raft: failed to process the request: node lost leader status"),
    (500, f"{UNKNOWN}raft: failed to process the request: node is stopped"),
    (500, f"{UNKNOWN}raft: no elected cluster leader"),
    (500, f"{UNKNOWN}raft: raft proposal dropped"),
    (500, f"{UNKNOWN}raft proposal dropped"),
    (500, f"{UNKNOWN}raft: stopped"),
    (500, f"{UNKNOWN}raft: member unknown"),
    (500, f"{UNKNOWN}raft: node is not yet part of a raft cluster"),
    (500, f"{UNKNOWN}raft: failed to set the hard state for log append entry"),
    (503, "rpc error: code = Unavailable desc = raft: node is stopped"),
    (500, "rpc error: code = ResourceExhausted desc = too many pings"),
    (500, f"{UNKNOWN}redirect to leader"),
    (500, f"{UNKNOWN}The swarm does not have a leader. It's possible that too few managers are online."),
    # managers that start and stop
    (500, f"{UNKNOWN}dispatcher is stopped"),
    (500, f"{UNKNOWN}manager is stopped"),
    (500, f"{UNKNOWN}store is closed"),
    (500, f"{UNKNOWN}memory store lock was held."),
    (500, f"{UNKNOWN}data store lock held too long - transferring leadership"),
    (
        503,
        'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node',
    ),
    (503, "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state."),
    (
        503,
        "This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster.",
    ),
    (503, "This node is not part of a swarm"),
    (503, "Swarm is encrypted and needs to be unlocked before it can be used."),
    (503, "Swarm certificates have expired. To replace them, leave the swarm and join again."),
    # gRPC
    (503, 'rpc error: code = Unavailable desc = connection error: desc = "transport: Error while dialing"'),
    (503, "rpc error: code = Unavailable desc = all SubConns are in TransientFailure"),
    (500, "rpc error: code = Unavailable desc = transport is closing"),
    (500, "rpc error: code = DeadlineExceeded desc = context deadline exceeded"),
    (500, "rpc error: code = Canceled desc = context canceled"),
    (500, "rpc error: code = Canceled desc = grpc: the client connection is closing"),
    (500, "rpc error: code = Aborted desc = dispatcher is stopped"),
    (500, "rpc error: code = Internal desc = stream terminated by RST_STREAM with error code: CANCEL"),
    (500, "rpc error: code = DataLoss desc = something"),
    (500, "grpc: the connection is closing due to channel idleness"),
    (500, "context deadline exceeded"),
    (500, "context canceled"),
    (500, "net/http: request canceled (Client.Timeout exceeded while awaiting headers)"),
    (500, f"{UNKNOWN}dial tcp 10.0.0.1:2377: connect: connection refused"),
    (500, "read unix @->/run/docker.sock: connection reset by peer"),
    (500, "write: broken pipe"),
    (500, "dial tcp 10.0.0.1:2377: i/o timeout"),
    (500, "dial tcp 10.0.0.1:2377: connect: no route to host"),
    (500, "unexpected EOF"),
    # the machine
    (500, "mkdir /var/lib/docker/tmp: no space left on device"),
    (400, "write /var/lib/docker/tmp/layer.tar: no space left on device"),
    (500, "open /proc/self: too many open files"),
    (500, "fork/exec /usr/bin/runc: cannot allocate memory"),
    (500, "read-only file system"),
    # a proxy, or what nobody has seen yet
    (502, "Bad Gateway"),
    (503, "Service Unavailable"),
    (504, "Gateway Timeout"),
    (408, "Request Timeout"),
    (429, "Too Many Requests"),
    (500, "something that nobody has seen yet"),
    (500, f"{UNKNOWN}something that nobody has seen yet"),
]

LOOKED_AT_AGAIN = [
    (500, f"{UNKNOWN}update out of sequence"),
    (500, f"{UNKNOWN}object does not exist"),
    (404, "service shop not found"),
    (404, "rpc error: code = NotFound desc = service abc not found"),
    (404, "network web not found"),
    (500, "network web not found"),
    (404, "secret key not found"),
    (400, "rpc error: code = InvalidArgument desc = secret not found: abc"),
    (400, "rpc error: code = InvalidArgument desc = config not found: abc"),
    (
        409,
        "rpc error: code = AlreadyExists desc = name conflicts with an existing object: service a already exists",
    ),
    (409, "rpc error: code = AlreadyExists desc = secret a already exists"),
    (409, "network with name a already exists"),
    (409, "anything else that is in conflict"),
    (500, f"{UNKNOWN}name conflicts with an existing object"),
]

REFUSED = [
    (400, "rpc error: code = InvalidArgument desc = name must be valid as a DNS name component"),
    (400, "rpc error: code = FailedPrecondition desc = service a does not have a previous spec"),
    (
        400,
        "rpc error: code = InvalidArgument desc = port '80' is already in use by service 'a' (b) as an ingress port",
    ),
    (400, "json: cannot unmarshal number into Go struct field ServiceSpec.Name of type string"),
    (400, "rpc error: code = InvalidArgument desc = raft: this is a value of an invalid spec, not raft's"),
    (400, "Error processing tar file(exit status 1): unexpected EOF"),
    (401, "unauthorized"),
    (403, "authorization denied by plugin"),
    (403, "The network bridge cannot be used with services. Only networks scoped to the swarm can be used"),
    (404, 'plugin "nothing" not found'),
    (404, "page not found"),
    (413, "Request Entity Too Large"),
    (
        500,
        "rpc error: code = ResourceExhausted desc = grpc: received message larger than max (4500391 vs. 4194304)",
    ),
    (500, "rpc error: code = ResourceExhausted desc = trying to send message larger than max (5 vs. 4)"),
    (500, f"{UNKNOWN}raft: raft message is too large and can't be sent"),
    (500, "invalid name: "),
    (500, "Invalid subnet 10.9.0.0/99 : invalid CIDR address: 10.9.0.0/99"),
    (500, f"{UNKNOWN}invalid argument"),
    (501, "rpc error: code = Unimplemented desc = renaming services is not supported"),
    (501, "rpc error: code = Unimplemented desc = service mode change is not allowed"),
]

CASES = [
    *((Unavailable, status, text) for status, text in TRIED_AGAIN),
    *((LostRace, status, text) for status, text in LOOKED_AT_AGAIN),
    *((Refused, status, text) for status, text in REFUSED),
]


@pytest.mark.parametrize(("kind", "status", "text"), CASES, ids=[f"{s}-{t[-50:]}" for _, s, t in CASES])
def test_the_class_of_an_error(kind: type[PortError], status: int, text: str) -> None:
    """Each known text has its class, and the call is named."""
    error = translated(EngineError(status, text), "updating service shop")
    assert type(error) in {kind, NotAManager if kind is Unavailable else kind}
    assert str(error).startswith("updating service shop: ")


@pytest.mark.parametrize(
    ("status", "text", "says"),
    [
        (500, f"{UNKNOWN}update out of sequence", CHANGED),
        (503, TRIED_AGAIN[19][1], NOT_A_MANAGER),
        (
            503,
            "This node is not a swarm manager. Manager is being prepared or has trouble connecting",
            GOT_READY,
        ),
        (503, "rpc error: code = Unavailable desc = why", "rpc error: code = Unavailable desc = why"),
        (503, "Service Unavailable", "Service Unavailable"),
    ],
)
def test_what_is_said_of_it(status: int, text: str, says: str) -> None:
    """The engine's reason is kept, or said in our words; not every 503 is an engine that is no manager."""
    assert str(translated(EngineError(status, text), "x")) == f"x: {says}"


def test_a_long_text_is_cut() -> None:
    """A page of text becomes one line of bounded length."""
    error = str(translated(EngineError(400, "why\n" * 1000), "x"))
    assert len(error) < 700
    assert "\n" not in error
    assert error.endswith("more characters)")


@pytest.mark.parametrize(("status", "text"), LOOKED_AT_AGAIN[9:12] + LOOKED_AT_AGAIN[13:])
def test_a_conflict_of_names(status: int, text: str) -> None:
    """A name that is taken is told from other conflicts, with 500 too."""
    assert is_conflict(EngineError(status, text))


@pytest.mark.parametrize(
    ("status", "text"), [(409, "is in use"), (500, "raft: stopped"), (400, "already exists")]
)
def test_no_conflict_of_names(status: int, text: str) -> None:
    """Nothing else is taken for one."""
    assert not is_conflict(EngineError(status, text))


@pytest.mark.parametrize(
    ("state", "is_manager", "error", "said"),
    [
        ("locked", True, "", "docker swarm unlock"),
        ("inactive", True, "", "this engine is in no Swarm: docker swarm init, or docker swarm join"),
        ("pending", True, "", "this engine is about to start or join a Swarm"),
        ("active", False, "", "this engine is a worker: let DOCKER_HOST name a manager"),
        ("error", True, "could not bind to port 2377", "its state is error (could not bind to port 2377)"),
        ("error", True, "Swarm certificates have expired. To replace them, …", "docker swarm leave"),
    ],
)
async def test_an_engine_that_manages_nothing_gets_the_right_advice(
    state: Any, is_manager: bool, error: str, said: str
) -> None:
    """Another Swarm beside a locked one is the last thing to make: only one of these is told `docker swarm init`."""
    engine = MemoryEngine()
    engine.swarm_state, engine.is_manager, engine.swarm_error = state, is_manager, error
    with pytest.raises(Unavailable) as caught:
        await SwarmPort(engine).observe()
    text = str(caught.value)
    assert text.startswith("listing what runs: ")
    assert said in text
    assert ("docker swarm init" in text) is (state == "inactive")


async def test_an_engine_that_has_just_become_a_manager_is_said_to_be_getting_ready() -> None:
    """Refused a moment ago, a manager now."""
    engine = MemoryEngine()
    engine.faults.append(
        Fault(method="list_nodes", error=EngineError(503, "This node is not a swarm manager."))
    )
    with pytest.raises(Unavailable, match="not ready yet"):
        await SwarmPort(engine).observe()
