"""The files that a cluster file consists of: itself, or those of a folder, and what they refer to. Read together.

Everything here may wait for a file system that hangs: it belongs into a thread that can be left behind.
"""

import errno
import hashlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from attrs import field, frozen

from coreflow.domain.records.converter import Unclear
from coreflow.reading import MIB, SMALL_FILE, read_file

from .age import SUFFIX as AGE
from .age import AgeIdentity, Sealed, opened

FILE_LIMIT = 256 * MIB
"""Bytes of a cluster file, or of all files of a folder; one with 20,000 services has a tenth."""
FILES_LIMIT = 1000
"""Files of a folder."""
SECRETS = Path("/run/secrets")
"""Where Docker puts secrets: a reference may lead there by its absolute path."""
_SUFFIXES = (".yaml", ".yml", ".json")

Signature = tuple[int, ...]
"""What tells one state of a file from another, without reading it."""
Watched = Mapping[Path, Signature]
"""The files that were looked at, and in which state."""


@frozen
class Source:
    """One file with records. `name` is its path without what says that it was encrypted."""

    name: Path
    data: bytes = field(repr=False)


@frozen
class Sources:
    """The files with records, in the order of their names, and how they were found."""

    files: tuple[Source, ...]
    watched: Watched
    is_folder: bool

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(len(one.data) for one in self.files)

    @property
    def digest(self) -> bytes:
        """The hash of their names and content."""
        whole = hashlib.sha256()
        for one in self.files:
            whole.update(hashlib.sha256(bytes(one.name)).digest() + hashlib.sha256(one.data).digest())
        return whole.digest()


@frozen
class References:
    """The values that references stand for, by what they say, and the files that were read for it."""

    values: "Mapping[tuple[str, str], str | Unclear]" = field(repr=False)
    watched: Watched


def signature(path: Path) -> Signature:
    """The state of a file, or the error in its place."""
    try:
        status = path.stat()
    except OSError as exc:
        return (exc.errno or 0,)
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev


def signatures(paths: Collection[Path]) -> Watched:
    """The state of each file."""
    return {path: signature(path) for path in paths}


def look(path: Path, others: Collection[Path]) -> Watched:
    """The state of a cluster file, or of a folder and its files, and of what else has been read for it."""
    try:
        inside = tuple(_names(path)) if path.is_dir() else ()
    except OSError:
        inside = ()  # the folder's own state will differ
    return signatures((path, *inside, *others))


def differs(one: Watched, other: Watched) -> bool:
    """Tell whether a file that both know is in another state."""
    return any(one[path] != other[path] for path in one.keys() & other.keys())


def read_sources(path: Path, identity: AgeIdentity) -> Sources:
    """Read a cluster file, or those in a folder. Raises OSError, whose `filename` is the culprit's."""
    is_folder = path.is_dir()
    watched = {path: signature(path), **_identity_file(identity)}
    names = list(_names(path)) if is_folder else [path]
    if len(names) > FILES_LIMIT:
        raise OSError(errno.EFBIG, f"the folder has more than {FILES_LIMIT} files", str(path))
    files = []
    left = FILE_LIMIT
    for name in names:
        watched[name] = signature(name)
        data = _read(name, left)
        left -= len(data)
        files.append(_opened(name, data, identity))
    if not files:
        raise OSError(errno.ENOENT, f"the folder has no file that ends in {', '.join(_SUFFIXES)}", str(path))
    return Sources(tuple(files), watched, is_folder)


def _identity_file(identity: AgeIdentity) -> Watched:
    return {} if identity.path is None else {identity.path: signature(identity.path)}


def _names(folder: Path) -> Iterator[Path]:
    """The files of a folder that hold records: hidden ones and those of editors do not."""
    for path in sorted(folder.iterdir()):
        name = path.name.removesuffix(AGE)
        if name.endswith(_SUFFIXES) and not name.startswith(".") and not path.is_dir():
            yield path


def _read(path: Path, limit: int) -> bytes:
    """The bytes of a file; an error says of which."""
    try:
        return read_file(path, limit)
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror or type(exc).__name__, str(path)) from None


def _opened(path: Path, data: bytes, identity: AgeIdentity) -> Source:
    if path.suffix != AGE:
        return Source(path, data)
    try:
        return Source(path.with_suffix(""), opened(data, identity))
    except Sealed as exc:
        raise OSError(errno.EACCES, str(exc), str(path)) from None


# references


def read_references(
    base: Path,
    wanted: Collection[tuple[str, str]],
    identity: AgeIdentity,
    environ: Mapping[str, str],
    secrets: Path = SECRETS,
) -> References:
    """Read what references stand for: `("fromFile", path)` and `("fromEnv", name)`.

    One that leads to nothing is an Unclear value: its record is rejected, and no other. Texts name neither path nor
    variable, since somebody may have written the secret itself there.
    """
    watched: dict[Path, Signature] = {}
    values: dict[tuple[str, str], str | Unclear] = {}
    for kind, text in wanted:
        if kind == "fromEnv":
            value = environ.get(text)
            values[kind, text] = (
                value if value is not None else Unclear("fromEnv names a variable that is not set")
            )
        else:
            values[kind, text] = _file_value(_Roots(base, secrets), text, identity, watched)
    return References(values, watched)


@frozen
class _Roots:
    """The folders that references may lead into: that of the cluster file, and that of Docker's secrets."""

    base: Path
    secrets: Path

    def place(self, text: str) -> Path | None:
        """Find the place that a path leads to, if it may."""
        path = self.base / text
        root = self.secrets if Path(text).is_absolute() else self.base
        return path if path.resolve().is_relative_to(root.resolve()) else None


def _file_value(
    roots: _Roots, text: str, identity: AgeIdentity, watched: dict[Path, Signature]
) -> str | Unclear:
    try:
        path = roots.place(text)
        if path is None:
            elsewhere = f"only {roots.secrets} may be elsewhere"
            return Unclear(f"fromFile leads out of the cluster file's folder; {elsewhere}")
        watched[path] = signature(path)
        data = read_file(path, SMALL_FILE)
        if path.suffix == AGE:
            data = opened(data, identity)
        return _without_line_break(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return Unclear("fromFile names a file that is not text in UTF-8")
    except Sealed as exc:
        return Unclear(f"fromFile names an encrypted file that cannot be opened: {exc}")
    except OSError as exc:
        return Unclear(f"fromFile names a file that cannot be read: {exc.strerror or type(exc).__name__}")
    except (RuntimeError, ValueError):  # a loop of links, a null byte
        return Unclear("fromFile is not a usable path")


def _without_line_break(text: str) -> str:
    """One line break at the end goes: editors and `echo` put it there, and it is no part of a token."""
    return text[:-2] if text.endswith("\r\n") else text.removesuffix("\n")
