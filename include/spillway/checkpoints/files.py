"""Files and folders as parts of a checkpoint, in pieces, so that neither saving nor restoring holds a whole file in memory.

`files.json` says which files and folders there are; the pieces of file 3 are the parts `files/000003-000000` and so on.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from spillway.errors import CorruptCheckpointError, SpecError
from spillway.model.codec import decode_json, encode_json

if TYPE_CHECKING:
    from spillway.checkpoints.store import BytesLike

INDEX: Final = "files.json"
PIECES: Final = "files/"
"""What the names of all pieces begin with."""

PIECE_BYTES: Final = 32 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedFile:
    """One file.

    Attributes:
        path: Below the folder that was saved, with `/` between components.
        size: In bytes.
    """

    path: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Everything in the folder that was saved.

    Attributes:
        folders: Their paths; those that hold nothing are saved too.
        piece_bytes: Size of each piece but the last of a file.
    """

    folders: tuple[str, ...]
    files: tuple[SavedFile, ...]
    piece_bytes: int = PIECE_BYTES


class Files:
    """A file, or all files below a folder, about to be saved; they must stay as they are until they are.

    Attributes:
        size: Bytes of all files.
    """

    def __init__(self, root: Path, *, piece_bytes: int = PIECE_BYTES) -> None:
        """Look at what there is; nothing is read.

        Raises:
            SpecError: There is nothing, or something that is neither a file nor a folder.
        """
        try:
            sources = _sources(root)
            found = {path: source for path, source in sources.items() if source.is_file()}
            self._states = [source.stat() for source in found.values()]
        except OSError as error:
            raise SpecError(f"{error.filename} cannot be saved: {error.strerror}") from error
        self._paths = list(found.values())
        self._index = Index(
            folders=tuple(path for path in sources if path not in found),
            files=tuple(
                SavedFile(path=path, size=state.st_size)
                for path, state in zip(found, self._states, strict=True)
            ),
            piece_bytes=piece_bytes,
        )
        self.size = sum(file.size for file in self._index.files)

    @property
    def room(self) -> int:
        """Bytes of memory that saving needs."""
        return min(
            self._index.piece_bytes, max((file.size for file in self._index.files), default=0)
        )

    def parts(self, room: memoryview, beside: Mapping[str, BytesLike]) -> Mapping[str, BytesLike]:
        """Return the parts after those of `beside`; a piece is read into `room` when it is asked for, and gone with the next."""
        return _Pieces(self, room, beside)

    def pieces(self) -> Iterator[str]:
        """Yield the names of all pieces."""
        for number, file in enumerate(self._index.files):
            for piece in range(_count(file, self._index)):
                yield _name(number, piece)

    def index(self) -> bytes:
        """Return the part `files.json`."""
        return encode_json(self._index)

    def read(self, name: str, room: memoryview) -> memoryview:
        """Read one piece into `room` and return what of it is used.

        Raises:
            SpecError: The file is not what it was.
        """
        number, piece = (int(part) for part in name.removeprefix(PIECES).split("-"))
        begin = piece * self._index.piece_bytes
        size = min(self._index.piece_bytes, self._index.files[number].size - begin)
        path, before = self._paths[number], self._states[number]
        try:
            with path.open("rb", buffering=0) as file:
                file.seek(begin)
                read = _read_into(file.fileno(), room[:size])
                now = os.fstat(file.fileno())
        except OSError as error:
            raise SpecError(f"cannot read {path} to save it: {error.strerror}") from error
        if read < size or (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise SpecError(
                f"{path} changed while it was being saved: leave it alone until checkpoint() has returned"
            )
        return room[:size]


class _Pieces(Mapping[str, "BytesLike"]):
    def __init__(self, files: Files, room: memoryview, beside: Mapping[str, BytesLike]) -> None:
        self._files = files
        self._room = room
        self._beside = {**beside, INDEX: files.index()}
        self._names = list(files.pieces())

    def __getitem__(self, name: str) -> BytesLike:
        if name in self._beside:
            return self._beside[name]
        return self._files.read(name, self._room)

    def __iter__(self) -> Iterator[str]:
        yield from self._beside
        yield from self._names

    def __len__(self) -> int:
        return len(self._beside) + len(self._names)


def write_files(parts: Mapping[str, BytesLike], into: Path) -> Path:
    """Write the files that `parts` hold below the folder `into`, which is made, and return it; a piece is in memory at a time.

    Raises:
        SpecError: `into` has something in it, or cannot be written to.
        CorruptCheckpointError: The index does not fit, or names files outside `into`.
    """
    try:
        index = decode_json(bytes(parts[INDEX]), Index)
    except (KeyError, SpecError) as error:
        raise CorruptCheckpointError(f"the checkpoint holds no files: {error}") from error
    if index.piece_bytes < 1:
        raise CorruptCheckpointError("the checkpoint's files are in pieces of nothing")
    for path in (*index.folders, *(file.path for file in index.files)):
        _check(path)
    try:
        into.mkdir(parents=True, exist_ok=True)
        if any(into.iterdir()):
            raise SpecError(f"{into} is not empty: give an empty or a new folder to restore into")
        for folder in index.folders:
            (into / folder).mkdir(parents=True, exist_ok=True)
        for number, file in enumerate(index.files):
            _write(parts, index, number, into / file.path)
    except OSError as error:
        raise SpecError(f"cannot restore into {into}: {error.strerror}; give another") from error
    return into


def _write(parts: Mapping[str, BytesLike], index: Index, number: int, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb", buffering=0) as file:
        for piece in range(_count(index.files[number], index)):
            try:
                rest = memoryview(parts[_name(number, piece)])
            except KeyError as error:
                raise CorruptCheckpointError(f"the checkpoint lacks a piece of {target}") from error
            while rest:
                rest = rest[file.write(rest) :]


def _sources(root: Path) -> dict[str, Path]:
    """Return every file and folder below `root` by its path there, sorted; links to files stand for what they lead to."""
    if root.is_file():
        return {root.name: root}
    if not root.is_dir():
        raise SpecError(f"{root} cannot be saved: it is neither a file nor a folder")
    found = {}
    for source in sorted(root.rglob("*")):
        if source.is_symlink() and source.is_dir():
            raise SpecError(f"{source} cannot be saved: it is a link to a folder; copy the folder")
        if not source.is_dir() and not stat.S_ISREG(source.stat().st_mode):
            raise SpecError(f"{source} cannot be saved: it is neither a file nor a folder")
        found[source.relative_to(root).as_posix()] = source
    return found


def _check(path: str) -> None:
    """Refuse a path that leads out of the folder it is put below."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts or "\0" in path:
        raise CorruptCheckpointError(f"the checkpoint names the file {path!r}, which is outside")


def _read_into(descriptor: int, room: memoryview) -> int:
    done = 0
    while done < len(room) and (count := os.readv(descriptor, [room[done:]])):
        done += count
    return done


def _count(file: SavedFile, index: Index) -> int:
    return -(-file.size // index.piece_bytes)


def _name(number: int, piece: int) -> str:
    return f"{PIECES}{number:06d}-{piece:06d}"
