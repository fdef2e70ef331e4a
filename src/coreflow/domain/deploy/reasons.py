"""Reasons of updates: what differs between a live service and the desired one, in a person's words."""

from collections.abc import Iterator
from typing import assert_never

from attrs import evolve

from coreflow.domain.swarm import naming
from coreflow.domain.swarm.images import unpinned
from coreflow.domain.swarm.observed import ObservedService
from coreflow.domain.swarm.specs import Aspect, PublishedPort, ServiceBody, ServiceSpec
from coreflow.domain.swarm.templates import BRACES, EXPANDED

BY_HAND = "changed by hand"
"""Part of the reason for putting a drift right."""


def intent_of(spec: ServiceSpec, live: ObservedService) -> str:
    """Return what changed in the record since the last write, and what somebody changed on top of it."""
    intended: list[str] = []
    by_hand: list[str] = []
    for aspect in Aspect:
        if spec.fingerprints.aspect(aspect) == live.fingerprints.aspect(aspect):
            continue
        changed = list(_aspect_changes(aspect, live.body, spec.body))
        same_intent = live.labels.get(naming.aspect_label(aspect.value)) == spec.fingerprints.aspect(aspect)
        (by_hand if same_intent else intended).extend(changed)
    if not intended and not by_hand:
        return "labels do not match what runs"
    texts = ["; ".join(intended)] if intended else []
    if by_hand:
        texts.append(f"{BY_HAND}: {', '.join(by_hand)}")
    return "; ".join(texts)


def drift_of(live: ServiceBody, wanted: ServiceBody) -> str:
    """Return who made the difference: somebody, or Swarm, which expanded what a coreflow of old had sent as it was."""
    lines = set(live.env) ^ set(wanted.env)
    marks = (*(path for path, _ in live.other), *(mount.other for mount in live.mounts))
    if any(BRACES in line for line in lines) or any(EXPANDED in mark for mark in marks):
        return "becomes literal text"
    return BY_HAND


def changes_of(live: ServiceBody, wanted: ServiceBody) -> str:
    return ", ".join(text for aspect in Aspect for text in _aspect_changes(aspect, live, wanted))


def _aspect_changes(aspect: Aspect, live: ServiceBody, wanted: ServiceBody) -> Iterator[str]:
    """Name the differences of one aspect; names and sizes only, never the value of a variable or secret."""
    match aspect:
        case Aspect.IMAGE:
            if live.image != wanted.image:
                yield _image_change(live.image, wanted.image)
        case Aspect.SECRET:
            if live.secrets != wanted.secrets:
                yield _secret_change(live, wanted)
        case Aspect.VOLUMES:
            yield from _mount_changes(live, wanted)
        case Aspect.REST:
            yield from _rest_changes(live, wanted)
        case _:
            assert_never(aspect)


def _image_change(live: str, wanted: str) -> str:
    """Names and tags where they differ; else the digests behind them, cut."""
    if unpinned(live) != unpinned(wanted):
        return f"image {unpinned(live)} → {unpinned(wanted)}"
    old, new = (image.partition("@")[2][:19] or "no digest" for image in (live, wanted))
    return f"image {unpinned(live)}: {old} → {new}"


def _secret_change(live: ServiceBody, wanted: ServiceBody) -> str:
    if not live.secrets:
        return "secret missing" if wanted.secrets else "secrets"
    return "secret rotated" if wanted.secrets else "secret no longer wanted"


def _mount_changes(live: ServiceBody, wanted: ServiceBody) -> Iterator[str]:
    old, new = ({mount.target: mount for mount in body.mounts} for body in (live, wanted))
    for target in sorted(old.keys() | new.keys()):
        if target not in old:
            yield f"mount {target} added"
        elif target not in new:
            yield f"mount {target} removed"
        elif old[target] != new[target]:
            yield f"mount {target} changed"


def _rest_changes(live: ServiceBody, wanted: ServiceBody) -> Iterator[str]:
    if live.replicas != wanted.replicas:
        if live.replicas is None or wanted.replicas is None:
            yield "mode"
        else:
            yield f"replicas {live.replicas}, wanted {wanted.replicas}"
    if live.env != wanted.env:
        yield f"env {', '.join(_env_names(live.env, wanted.env)) or '(order)'}"
    if sorted(live.ports, key=_port_key) != sorted(wanted.ports, key=_port_key):
        yield "ports"
    if sorted(_attachments(live)) != sorted(_attachments(wanted)):
        yield "networks"
    for name, text in (
        ("command", "command"),
        ("args", "arguments"),
        ("endpoint_mode", "endpoint mode"),
        ("limits", "limits"),
        ("reservations", "reservations"),
        ("constraints", "placement"),
        ("max_per_node", "tasks per node"),
        ("health_check", "health check"),
        ("restart", "restart policy"),
    ):
        if getattr(live, name) != getattr(wanted, name):
            yield text
    for name, text in (("update", "update policy"), ("rollback", "roll-back policy")):
        old_policy, new_policy = getattr(live, name), getattr(wanted, name)
        if live.mounts != wanted.mounts:  # the order follows from the mounts: one change, one reason
            old_policy = evolve(old_policy, order=new_policy.order)
        if old_policy != new_policy:
            yield text
    old, new = dict(live.other), dict(wanted.other)
    yield from (path for path in sorted(old.keys() | new.keys()) if old.get(path) != new.get(path))


def _env_names(live: tuple[str, ...], wanted: tuple[str, ...]) -> list[str]:
    return sorted({line.partition("=")[0] for line in set(live) ^ set(wanted)})


def _port_key(port: PublishedPort) -> tuple[int, int, str, str]:
    return (port.published, port.target, port.protocol, port.mode)


def _attachments(body: ServiceBody) -> Iterator[tuple[str, tuple[str, ...]]]:
    for attachment in body.networks:
        yield attachment.network, tuple(sorted(attachment.aliases))
