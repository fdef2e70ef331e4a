"""The table of names."""

from pathlib import Path

from coreflow.adapters.cloudly.methods import ANSWERED, ASKED, method_table

DOCUMENT = Path(__file__).parents[4] / "docs" / "cloudly.md"


def test_the_document_has_the_table() -> None:
    """docs/cloudly.md holds the table as the code has it; print `method_table()` to renew it."""
    assert method_table() in DOCUMENT.read_text()


def test_a_name_occurs_once() -> None:
    """No method has two rows."""
    names = [method.name for method in (*ASKED, *ANSWERED)]
    assert len(names) == len(set(names))
