"""Docstrings of the package begin with a verb or a noun."""

import ast
from pathlib import Path

import coreflow

QUESTIONS = {
    "what",
    "who",
    "whose",
    "whom",
    "whether",
    "how",
    "where",
    "when",
    "why",
    "which",
    "whatever",
    "whoever",
}
"""A docstring that begins with one of these says what is asked, and not what the thing is or does."""


def test_docstrings_begin_with_a_verb_or_a_noun() -> None:
    """Of modules, classes and functions; tests, and comments on members, may begin as they like."""
    folder = Path(coreflow.__file__).parent
    found, read = [], 0
    for file in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            first, *_ = [*(ast.get_docstring(node) or "").split(), ""]
            read += bool(first)
            if first.lower().rstrip(",:") in QUESTIONS:
                name = getattr(node, "name", "the module")
                found.append(f"{file.relative_to(folder)}: {name}: {first} …")
    assert found == []
    assert read > 1000, "the files of the package were not found"
