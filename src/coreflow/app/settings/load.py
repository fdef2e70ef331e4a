"""Sources of settings, and their order.

Four sources, and the first that has a value wins: the process environment, one overlay file in `.nogit/`,
`/run/secrets/NAME`, and any JSON file below `/run/secrets` whose name contains `secret.json`. An empty value counts as
none, so that `${UNSET}` in a stack file does no harm; the one setting whose empty value means something says so.

Texts of errors and warnings name settings, files and lines, never a value: any of them may be a secret in the wrong
place.
"""

import difflib
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

from coreflow.domain.errors import CoreflowError
from coreflow.domain.records.keys import spelt
from coreflow.reading import read_file

from .documents import dotenv, json_scalars, yaml_scalars
from .parsers import Wrong, listed, travels_in_the_clear
from .table import BY_NAME, NAMES, PREFIX, SETTINGS, Setting
from .values import Settings

OVERLAY_FOLDER = Path(".nogit")
OVERLAY_FILES = ("env.json", "env.yml", "env.yaml", ".env")
"""Where an overlay may be, in order: only the first that exists is read."""
SECRETS_FOLDER = Path("/run/secrets")
SECRET_DOCUMENT = "secret.json"
"""Files below the secrets folder with this in their name hold several settings."""
_NOT_SETTINGS = ("COREFLOW_TEST_", "COREFLOW_ENGINE_", "COREFLOW_REQUIRE_")
"""Variables of the project's own test engine."""


class InvalidSetting(CoreflowError):
    """Settings are missing or malformed. One sentence names each of them and where it came from, never its value.

    `warnings` are those found on the way: a misspelt name is often the reason why another is missing.
    """

    def __init__(self, *problems: str, warnings: tuple[str, ...] = ()) -> None:
        super().__init__(*problems)
        self.problems, self.warnings = problems, warnings

    def __str__(self) -> str:
        return "; ".join(self.problems)


def load_settings(
    environ: Mapping[str, str],
    *,
    directory: Path = OVERLAY_FOLDER,
    secrets: Path = SECRETS_FOLDER,
    require_cloudly: bool = True,
) -> Settings:
    """Read every setting from `environ`, the overlay in `directory`, and the files in `secrets`.

    Depends on nothing else; either folder may be absent. With `require_cloudly=False`, CLOUDLY_URL and JUMPCODE may be
    missing. Raises InvalidSetting with everything that is missing or malformed.
    """
    loading = _Loading()
    loading.add_environment(environ)
    loading.add_overlay(directory)
    loading.add_secret_files(secrets)
    loading.add_secret_documents(secrets)
    values = {setting.attribute: loading.value(setting) for setting in SETTINGS}
    for name in loading.required if require_cloudly else ():
        if name not in loading.found:
            where = f"set it in the environment, in {directory} or as {secrets / name}"
            loading.problems.append(f"{name} is missing: {where}")
    if loading.problems:
        raise InvalidSetting(*loading.problems, warnings=tuple(loading.warnings))
    if values["cloudly_url"] is not None and travels_in_the_clear(values["cloudly_url"]):
        loading.warnings.append("CLOUDLY_URL is not encrypted: the token and all secrets travel in the clear")
    found = {name: value.source for name, value in loading.found.items()}
    return Settings(**values, warnings=tuple(loading.warnings), sources=found)


@frozen
class _Found:
    """A value, or the error of the operating system that kept us from reading it."""

    text: str = field(repr=False)
    source: str
    problem: str | None = None


_ALSO_LOWER = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
"""Settings of no project in particular, which many write in lower case."""


class _Loading:
    """The values found so far. Sources are added in order of precedence."""

    def __init__(self) -> None:
        self.found: dict[str, _Found] = {}
        self.problems: list[str] = []
        self.warnings: list[str] = []

    def value(self, setting: Setting) -> Any:
        """The value of a setting: found, or its default. A bad one is a problem, and None."""
        found = self.found.get(setting.name)
        if found is None:
            return None if setting.default is None else setting.parse(setting.default)
        try:
            if found.problem is not None:
                raise Wrong(found.problem)
            return setting.parse(found.text if setting.secret else found.text.strip())
        except Wrong as exc:
            self.problems.append(f"{setting.name} ({found.source}) {exc}")
            return None

    @property
    def required(self) -> tuple[str, ...]:
        """Return what must be found: only a control plane asks for a token, and whoever named none may mean a file."""
        url = self.found.get("CLOUDLY_URL")
        is_file = url is None or url.text.strip().lower().startswith("file:")
        return ("CLOUDLY_URL",) if is_file else ("CLOUDLY_URL", "JUMPCODE")

    def add_environment(self, environ: Mapping[str, str]) -> None:
        self._warn_of_unknown(environ, "environment")
        self._add(environ.items(), "environment")
        lower = {name: environ[name.lower()] for name in _ALSO_LOWER if name.lower() in environ}
        self._add([(name, text) for name, text in lower.items() if name not in self.found], "environment")

    def add_overlay(self, folder: Path) -> None:
        """Read the first overlay file there is."""
        paths = [folder / name for name in OVERLAY_FILES if _is_file(folder / name)]
        if not paths:
            return
        path, *others = paths
        if others:
            verb = "are" if len(others) > 1 else "is"
            names = listed([other.name for other in others], "and")
            self.warnings.append(f"{path} is used, and {names} beside it {verb} ignored")
        values = self._read(path, {".json": json_scalars, ".env": dotenv}.get(_kind(path), yaml_scalars))
        self._warn_of_unknown(values, str(path))
        self._add(values.items(), str(path))

    def add_secret_files(self, folder: Path) -> None:
        """Read `/run/secrets/NAME` for every setting that has no value yet.

        One line break at the end goes: editors and `echo` put it there, and it is no part of a token. What is left is
        the value, so that a second one still shows as a mistake.
        """
        for setting in SETTINGS:
            path = folder / setting.name
            if setting.name in self.found:
                continue
            try:
                text = read_file(path).decode("utf-8-sig")
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as exc:
                self.found[setting.name] = _Found("", str(path), f"cannot be read: {exc.strerror}")
            except UnicodeDecodeError:
                self.found[setting.name] = _Found("", str(path), "is not text in UTF-8")
            else:
                self._add([(setting.name, _without_line_break(text))], str(path))

    def add_secret_documents(self, folder: Path) -> None:
        """Read every `*secret.json*`, in the order of their names."""
        try:
            paths = sorted(path for path in folder.iterdir() if SECRET_DOCUMENT in path.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as exc:
            self.problems.append(f"{folder} cannot be read: {exc.strerror}")
            return
        for path in paths:
            if _is_file(path):
                self._add(self._read(path, json_scalars).items(), str(path))

    def _read(self, path: Path, parse: Callable[[str], Mapping[str, str | None]]) -> Mapping[str, str | None]:
        """The names and texts in a file; a file that cannot be understood is a problem, and empty."""
        try:
            return parse(read_file(path).decode("utf-8-sig"))
        except OSError as exc:
            self.problems.append(f"{path} cannot be read: {exc.strerror}")
        except UnicodeDecodeError:
            self.problems.append(f"{path} is not text in UTF-8")
        except Wrong as exc:
            self.problems.append(f"{path} {exc}")
        return {}

    def _add(self, values: Iterable[tuple[str, str | None]], source: str) -> None:
        """Take the values of settings that have none yet. None stands for a value that is not a single one."""
        for name, text in values:
            setting = BY_NAME.get(name)
            if setting is None or name in self.found:
                continue
            if text is None:
                self.found[name] = _Found("", source, "must be a single value, not a list or a mapping")
            elif text.strip() or setting.may_be_empty:
                self.found[name] = _Found(text, source)

    def _warn_of_unknown(self, names: Iterable[str], source: str) -> None:
        for name in sorted(names):
            if not name.startswith(PREFIX) or name.startswith(_NOT_SETTINGS) or name in BY_NAME:
                continue
            close = difflib.get_close_matches(name.removeprefix(PREFIX), NAMES, n=1)
            hint = f": did you mean {NAMES[close[0]]}?" if close else ""
            self.warnings.append(f"{spelt(name)} ({source}) is not a setting{hint}")


def _is_file(path: Path) -> bool:
    """Return whether there is something to read, as far as we may know: reading it will say why not. A folder is passed over."""
    try:
        return not stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True


def _kind(path: Path) -> str:
    return path.suffix or path.name


def _without_line_break(text: str) -> str:
    return text[:-2] if text.endswith("\r\n") else text.removesuffix("\n")
