"""Files that hold several settings: names and texts. Null is left out, and None stands for what is not a single value."""

import json
import re

import yaml

from .parsers import Wrong

_NULL, _MERGE = "tag:yaml.org,2002:null", "tag:yaml.org,2002:merge"
_DOTENV_LINE = re.compile(r"\s*(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_.-]*)\s*=\s*(?P<value>.*?)\s*")
_DOTENV_QUOTED = re.compile(r"""(?P<quote>["'])(?P<value>.*?)(?P=quote)\s*(#.*)?""")
_DOTENV_COMMENT = re.compile(r"(^|\s+)#.*")


def json_scalars(text: str) -> dict[str, str | None]:
    """The names of a JSON object. Numbers stay as they are written."""

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        values = dict(items)
        if len(values) < len(items):
            raise Wrong("has a name twice")
        return values

    try:
        document = json.loads(
            text, object_pairs_hook=pairs, parse_int=str, parse_float=str, parse_constant=str
        )
    except json.JSONDecodeError as exc:
        line = exc.lineno
    except RecursionError:
        line = 1
    else:
        if not isinstance(document, dict):
            raise Wrong("must hold a JSON object")
        return {name: _scalar(value) for name, value in document.items() if value is not None}
    raise Wrong(f"is not valid JSON in line {line}")


def _scalar(value: object) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else None


def yaml_scalars(text: str) -> dict[str, str | None]:
    """The names of a YAML mapping. Scalars stay as they are written: a token of digits is no number."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
    except RecursionError:
        where = ""
    else:
        return _mapping_scalars(node)
    raise Wrong(f"is not valid YAML{where}")


def _mapping_scalars(node: yaml.Node | None) -> dict[str, str | None]:
    if node is None:
        return {}
    if not isinstance(node, yaml.MappingNode):
        raise Wrong("must hold a YAML mapping")
    values: dict[str, str | None] = {}
    seen: set[str] = set()
    for key, value in node.value:
        name = key.value if isinstance(key, yaml.ScalarNode) else None
        if name is None or name in seen:
            what = "has a name that is not text" if name is None else "has a name twice"
            raise Wrong(f"{what} in line {key.start_mark.line + 1}")
        if key.tag == _MERGE:
            raise Wrong(f"has << in line {key.start_mark.line + 1}: write what it brings in")
        seen.add(name)
        if value.tag != _NULL:
            values[name] = value.value if isinstance(value, yaml.ScalarNode) else None
    return values


def dotenv(text: str) -> dict[str, str | None]:
    """The names of a `.env` file: `NAME=value` per line, quotes around the value, `#` before a comment."""
    values: dict[str, str | None] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _DOTENV_LINE.fullmatch(line)
        if match is None:
            raise Wrong(f"must have NAME=value in line {number}")
        name, value = match["name"], match["value"]
        if name in values:
            raise Wrong(f"has a name twice in line {number}")
        if value[:1] in {'"', "'"}:
            quoted = _DOTENV_QUOTED.fullmatch(value)
            if quoted is None:
                raise Wrong(f"has a quote that does not end in line {number}")
            values[name] = quoted["value"]
        else:
            values[name] = _DOTENV_COMMENT.sub("", value)
    return values
