"""docs/records.md has every field of the records, and no other."""

import re
from pathlib import Path

import pytest

from coreflow.domain.records.shapes import Fields, Member, cluster_file, walk

PAGE = (Path(__file__).parents[2] / "docs" / "records.md").read_text()
SECTIONS = dict(re.findall(r"^##+ ([^\n]+)\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL))
SECTION_OF = {
    "Cluster": "Cluster: `configData`",
    "Node": "Cluster: `configData`",
    "RegistryLogin": "Cluster: `configData`",
    "Service": "Services: `services[]`",
    "Ports": "Services: `services[]`",
    "Domain": "Services: `services[]`",
    "RegistryTarget": "`registryTarget`",
    "Resources": "`resources`",
    "VolumeMount": "`resources`",
    "Volume": "`volumes[]`",
    "HealthCheck": "`healthCheck`",
    "Image": "Images: `images[]`",
    "ImageLocation": "Images: `images[]`",
    "ImageVersion": "Images: `images[]`",
    "ExternalRegistry": "External registries: `externalRegistries[]`",
    "SecretBundle": "Secrets: `secretBundles[]`, `secretGroups[]`",
    "SecretGroup": "Secrets: `secretBundles[]`, `secretGroups[]`",
    "SecretValue": "Secrets: `secretBundles[]`, `secretGroups[]`",
    "Tag": "Secrets: `secretBundles[]`, `secretGroups[]`",
    "Platform": "Platform, gateway, certificates",
    "PlatformProvider": "Platform, gateway, certificates",
    "Binding": "Platform, gateway, certificates",
    "Gateway": "Platform, gateway, certificates",
    "Certificate": "Platform, gateway, certificates",
}  # fmt: skip
"""Where on the page the fields of each mapping are."""
LEVELS = {level.name: level for _, level in walk(cluster_file()) if level.name != "ClusterFile"}
CONTAINERS = {"location", "versions", "ports"}
"""Fields of which the page has only what is in them: `location.internal`."""


def rows(section: str) -> list[tuple[set[str], str]]:
    """The rows of a section's tables: the names in the first cell, without what is around them, and the row."""
    found = re.findall(r"^\| (`[^|]*) \|.*$", SECTIONS[section], re.MULTILINE)
    lines = re.findall(r"^\| `[^|]* \|.*$", SECTIONS[section], re.MULTILINE)
    return [
        ({re.split(r"[.\]]+", name)[-1] for name in re.findall(r"`([^`]+)`", cell)}, line)
        for cell, line in zip(found, lines, strict=True)
    ]


def test_every_mapping_has_its_place() -> None:
    """A record that is new needs a section."""
    assert SECTION_OF.keys() == LEVELS.keys()
    assert set(SECTION_OF.values()) <= SECTIONS.keys()


@pytest.mark.parametrize("name", LEVELS)
def test_every_field_is_on_the_page(name: str) -> None:
    """In a row of its section, or among the words of one; with its default, and whether it is required."""
    section = SECTIONS[SECTION_OF[name]]
    for field, member in LEVELS[name].members.items():
        lines = [line for names, line in rows(SECTION_OF[name]) if field in names]
        inline = re.search(rf"\{{[^}}\n]*\b{field}\b[^}}\n]*\}}", section)
        assert lines or inline or field in CONTAINERS or member.about.older, field
        for line in lines if len(lines) == 1 and not inline else ():
            _check_row(LEVELS[name], field, member, line)


def _check_row(level: Fields, field: str, member: Member, line: str) -> None:
    if member.default is not None:
        word = str(member.default).lower() if isinstance(member.default, bool) else str(member.default)
        assert f"`{word}`" in line, (level, field)
    if member.required:
        assert "equired" in line, (level, field)


@pytest.mark.parametrize("section", sorted(set(SECTION_OF.values())))
def test_the_page_has_no_other_fields(section: str) -> None:
    """What is described is read."""
    known = {
        field for name, level in LEVELS.items() if SECTION_OF[name] == section for field in level.members
    }
    beside = {"containers"} if section.startswith("Cluster") else set()
    tables = [names for names, line in rows(section) if line.count("|") >= 5]
    assert {name for names in tables for name in names} <= known | beside
