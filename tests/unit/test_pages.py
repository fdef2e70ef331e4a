"""What the documentation names is there: pages, sections, pictures, modules."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "coreflow"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PARTS = "app", "adapters", "domain"
"""The folders of the source that pages name without what is above them."""


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def _anchors(page: Path) -> set[str]:
    """The sections of a page, as GitHub names them in links."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file of the repository and, where it names a section, one that is there."""
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", page.read_text()):
        path = page.parent / target if target else page
        assert path.exists(), target
        assert not anchor or anchor in _anchors(path), (target, anchor)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_modules_that_are_named_exist(page: Path) -> None:
    """Every path below `app`, `adapters` or `domain` is one of the source; NAME stands for any."""
    for path in re.findall(rf"`((?:{'|'.join(PARTS)})/[\w/.]+)`", page.read_text()):
        assert "NAME" in path or (SOURCE / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_tests_that_are_named_exist(page: Path) -> None:
    """Every path below `tests` is there; NAME stands for any, and so does a star."""
    for path in re.findall(r"`(tests/[\w/.*]+)`", page.read_text()):
        assert "NAME" in path or list(ROOT.glob(path)), path
