"""The text that is learned: the source of Python's own standard library, as installed. Needs no download.

Everything here gives the same answer for the same files, whatever order the file system lists them in.
"""

from __future__ import annotations

import hashlib
import io
import sysconfig
import tokenize
import unicodedata
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from spillway.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_LEFT_OUT = (
    "__pycache__",
    "dist-packages",
    "idle_test",
    "idlelib",
    "lib2to3",
    "site-packages",
    "test",
    "tests",
    "_sysconfigdata*",  # written by the build, different on each machine
    "config-*",
)
_VALIDATION_PERCENT = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One source file.

    Attributes:
        path: Below the folder it was found in, with `/` between components.
        text: Normalised.
        digest: SHA-256 of the text, hexadecimal.
        size: Bytes of the text in UTF-8.
    """

    path: str
    text: str = field(repr=False)
    digest: str = field(init=False)
    size: int = field(init=False)

    def __post_init__(self) -> None:
        """Take digest and size from the text."""
        encoded = self.text.encode()
        object.__setattr__(self, "digest", hashlib.sha256(encoded).hexdigest())
        object.__setattr__(self, "size", len(encoded))


def standard_library() -> Path:
    """Return the folder of the running Python's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def find(folder: Path) -> list[str]:
    """Return the paths below `folder` of its Python files, sorted, without tests and installed packages.

    Raises:
        SpecError: There is none.
    """
    found = (path.relative_to(folder) for path in folder.rglob("*.py"))
    paths = sorted(path.as_posix() for path in found if not _is_left_out(path))
    if not paths:
        raise SpecError(
            f"no Python source below {folder}: install the standard library with its source text"
        )
    return paths


def read(folder: Path, paths: Iterable[str]) -> Iterator[Document]:
    """Read and normalise, in the order of `paths`; files that are not text in the encoding they declare are passed over."""
    for path in paths:
        try:
            text = decode((folder / path).read_bytes())
        except (SyntaxError, UnicodeDecodeError):
            continue
        yield Document(path=path, text=normalise(text))


def decode(source: bytes) -> str:
    """Return Python source as text, by its declared encoding (PEP 263).

    Raises:
        SyntaxError: The declared encoding is unknown.
        UnicodeDecodeError: The bytes are not text in it.
    """
    encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
    return source.decode(encoding)


def normalise(text: str) -> str:
    """Return `text` in Unicode's composed form, with line feeds for line ends and no blanks at the end of a line."""
    composed = unicodedata.normalize("NFC", text)
    lines = composed.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    body = "\n".join(line.rstrip(" \t") for line in lines).strip("\n")
    return f"{body}\n" if body else ""


def without_copies(documents: Iterable[Document]) -> Iterator[Document]:
    """Return the documents without empty ones and without those that differ from an earlier one in white space only."""
    seen: set[bytes] = set()
    for document in documents:
        words = " ".join(document.text.split())
        fingerprint = hashlib.sha256(words.encode()).digest()
        if words and fingerprint not in seen:
            seen.add(fingerprint)
            yield document


def shuffled(paths: Iterable[str], seed: int) -> list[str]:
    """Return `paths` in an order that depends on the seed, and for each pair of paths on nothing else."""
    return sorted(paths, key=lambda path: hashlib.sha256(f"{seed}:{path}".encode()).digest())


def up_to(documents: Iterable[Document], max_bytes: int | None) -> list[Document]:
    """Return documents from the front until the next would pass `max_bytes`; all of them for None. At least one."""
    kept: list[Document] = []
    size = 0
    for document in documents:
        size += document.size
        if kept and max_bytes is not None and size > max_bytes:
            break
        kept.append(document)
    return kept


def choose_validation(documents: Sequence[Document]) -> frozenset[str]:
    """Return the digests of the documents to validate on: about one in twenty, and never none.

    The content alone decides, so a text never moves into training because others came or went, but for one case: where no
    document qualifies, the one with the smallest digest is taken.
    """
    digests = [document.digest for document in documents]
    chosen = {digest for digest in digests if int(digest[:8], 16) % 100 < _VALIDATION_PERCENT}
    return frozenset(chosen or {min(digests)})


def split_evenly(documents: Sequence[Document], shards: int) -> list[list[Document]]:
    """Return every document in exactly one of `shards` lists of nearly equal bytes, each sorted by path.

    The largest document goes first, each to the list that has least. Source: Graham, Bounds on Multiprocessing Timing
    Anomalies, 1969: at most 4/3 of the best possible.

    Raises:
        SpecError: There are fewer documents than shards.
    """
    if not 1 <= shards <= len(documents):
        raise SpecError(
            f"{len(documents)} documents cannot fill {shards} shards: "
            f"give shards from 1 to {len(documents)}"
        )
    lists: list[list[Document]] = [[] for _ in range(shards)]
    sizes = [0] * shards
    for document in sorted(documents, key=lambda document: (-document.size, document.path)):
        smallest = min(
            range(shards), key=lambda index: (len(lists[index]) > 0, sizes[index], index)
        )
        lists[smallest].append(document)
        sizes[smallest] += document.size
    return [sorted(part, key=lambda document: document.path) for part in lists]


def _is_left_out(path: Path) -> bool:
    return any(fnmatch(part, pattern) for part in path.parts for pattern in _LEFT_OUT)
