"""The names of members in documents and in source: what a program that reads ours goes by."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

_LOGS = frozenset({"debug", "info", "warning", "error", "critical", "exception", "bind", "bind_contextvars"})
_LOGGERS = frozenset({"log", "_log", "logger", "contextvars"})


def paths(document: object, at: str = "") -> set[str]:
    """Where each member of a JSON document is: `services[].name`."""
    if isinstance(document, Mapping):
        inner = [(f"{at}.{name}" if at else str(name), value) for name, value in document.items()]
        return {path for path, _ in inner}.union(*(paths(value, path) for path, value in inner))
    if isinstance(document, (list, tuple)):
        return set[str]().union(*(paths(value, f"{at}[]") for value in document))
    return set()


def written(sources: Iterable[Path]) -> set[str]:
    """The members that source files write: those of dictionaries that they spell out, and those they add to one."""
    return {name for node in _nodes(sources) for name in _keys(node) if name}


def logged(sources: Iterable[Path]) -> set[str]:
    """The members of lines of the log that are named where something is logged."""
    return {
        keyword.arg
        for node in _nodes(sources)
        if isinstance(node, ast.Call) and _is_log(node.func)
        for keyword in node.keywords
        if keyword.arg is not None
    }


def _nodes(sources: Iterable[Path]) -> Iterator[ast.AST]:
    for source in sources:
        yield from ast.walk(ast.parse(source.read_text()))


def _keys(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Dict(keys=keys):
            yield from (k.value for k in keys if isinstance(k, ast.Constant) and isinstance(k.value, str))
        case ast.Subscript(slice=ast.Constant(value=str(name)), ctx=ast.Store()):
            yield name


def _is_log(function: ast.expr) -> bool:
    match function:
        case ast.Attribute(attr=level, value=of) if level in _LOGS:
            owner = of.attr if isinstance(of, ast.Attribute) else of.id if isinstance(of, ast.Name) else ""
            return owner in _LOGGERS or isinstance(of, ast.Call)
    return False
