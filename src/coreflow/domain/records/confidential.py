"""Secrets in records: what must not be told, in whatever text."""

from collections.abc import Iterator, Mapping

from coreflow.domain.redaction.redactor import Redactor, is_word

from .models import Records, ServiceRecord


def known_in(records: Records) -> Redactor:
    """Passwords, tokens and keys of the records, and the values of variables, options and configurations.

    Ids, names, references and addresses of the records are public: every plan shows them.
    """
    return Redactor(_secrets(records), _values(records), _public(records), words=_words(records))


def texts(raw: object, name: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a document that is a value, with the name of the member that holds it."""
    if isinstance(raw, str):
        yield name, raw
    elif isinstance(raw, Mapping):
        for key, value in raw.items():
            yield from texts(value, str(key))
    elif isinstance(raw, (list, tuple)):
        for value in raw:
            yield from texts(value, name)


def _secrets(records: Records) -> Iterator[str]:
    logins = [
        records.cluster.registry_info,
        *(s.registry_target.registry_info for s in records.services if s.registry_target),
    ]
    yield from (login.password for login in logins if login is not None)
    yield from (registry.password or "" for registry in records.external_registries.values())
    yield from (certificate.private_key for certificate in records.certificates.values())
    if records.gateway is not None:
        yield records.gateway.api_token or ""


def _values(records: Records) -> Iterator[tuple[str, str]]:
    yield from _open_values(records)
    yield from _group_values(records)


def _words(records: Records) -> frozenset[str]:
    """Values that are no more than words. What a secret group holds is a secret, whatever it looks like."""
    secret = {value for _, value in _group_values(records)}
    guarded = {value for name, value in _open_values(records) if not is_word(name, value)}
    return frozenset(value for _, value in _open_values(records)) - secret - guarded


def _group_values(records: Records) -> Iterator[tuple[str, str]]:
    for group in records.secret_groups.values():
        yield from ((group.key, value.value) for value in group.environments.values())


def _open_values(records: Records) -> Iterator[tuple[str, str]]:
    for service in records.services:
        yield from service.environment.items()
        for volume in service.volumes:
            yield from volume.options.items()
        if service.health_check is not None:
            yield from (("", word) for word in service.health_check.command[1:])
    for binding in records.platform.bindings if records.platform is not None else ():
        yield from texts(binding.config)


def _public(records: Records) -> Iterator[str]:
    yield from (
        text for text in (records.cluster.id, records.cluster.name, records.cluster.cloudly_url) if text
    )
    for service in records.services:
        yield from _public_of(service)
    for identity, image in records.images.items():
        yield from (identity, image.name or "", image.location.external_image_tag or "")
        yield from (version.version_string for version in image.versions)
    for registry in records.external_registries.values():
        yield from (registry.id, registry.name or "", registry.url, registry.url.partition("://")[2])
    yield from (*records.secret_bundles, *records.secret_groups, *records.certificates)
    yield from (group.key for group in records.secret_groups.values())


def _public_of(service: ServiceRecord) -> Iterator[str]:
    yield from (service.id, service.name, service.image_id or "", service.image_version or "")
    yield from service.environment
    if (target := service.registry_target) is not None:
        names = (target.registry_host, target.repository, target.tag, target.digest, target.image_url)
        yield from (name for name in names if name)
        yield (target.image_url or "").partition("/")[0]
    yield from (domain.name for domain in service.domains)
    for volume in service.volumes:
        yield from (volume.mount_path, volume.name or "", volume.driver or "", *volume.options)
