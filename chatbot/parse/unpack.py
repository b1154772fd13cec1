"""A zip of files, unpacked: names of ours on disk, so that no member can choose where it lies.

Runs in the process of `chatbot.parse.worker`. What the headers say is checked before anything is unpacked
(`chatbot.parse.archive`), and all that is unpacked counts together, zips in the zip included.
"""

import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path

from chatbot.errors import PackedFiles, UnreadableDocument, room
from chatbot.parse import archive
from chatbot.parse.formats import kind_of
from chatbot.parse.plain import decode

_SLASHES, _DRIVE = re.compile(r"[\\/]+"), re.compile(r"^[A-Za-z]:")
DEEPEST = 2  # zips within each other
_ENCRYPTED, _UTF8 = 0x1, 0x800  # flags of a member; the second says that its name is UTF-8


@dataclass(frozen=True, slots=True)
class Unpacked:
    name: str  # "archive.zip/folder/file.txt": to show, not to open
    file: str  # its name in the folder; "" where it could not be unpacked
    problem: str = ""


def unpack(path: Path, name: str, folder: Path) -> list[Unpacked]:
    """Raises UnreadableDocument for what is no zip of files, a bomb, or damaged; DiskFull where the folder is full."""
    if not _holds_files(path, name):
        raise UnreadableDocument(f"{name!r} is no zip of files: give it as a document")
    return list(_Unpacking(folder).members(path, name, DEEPEST))


def _holds_files(path: Path, name: str) -> bool:
    try:
        kind_of(path, name)
    except PackedFiles:
        return True
    return False


class _Unpacking:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._members_left = archive.MAX_MEMBERS
        self._bytes_left = archive.MAX_UNPACKED
        self._files = 0

    def members(self, path: Path, name: str, depth: int) -> Iterator[Unpacked]:
        entries = [entry for entry in archive.entries(path, name) if not entry.is_dir()]
        self._members_left -= len(entries)
        self._bytes_left -= sum(entry.file_size for entry in entries)
        if self._members_left < 0 or self._bytes_left < 0:
            raise UnreadableDocument(f"{name!r} is too much, with what it was packed with: give it by itself")
        names = _names(entries)
        if not any(names):
            raise UnreadableDocument(
                f"{name!r} holds no file to read, or only hidden ones: pack what you want to ask about"
            )
        with zipfile.ZipFile(path) as opened:
            for entry, inside in zip(entries, names, strict=True):
                if inside:
                    yield from self._member(opened, entry, f"{name}/{inside}", depth)

    def _member(self, opened: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str, depth: int) -> Iterator[Unpacked]:
        self._files += 1
        file = self._folder / str(self._files)
        try:
            _extract(opened, entry, name, file)
            if not zipfile.is_zipfile(file) or not _holds_files(file, name):
                yield Unpacked(name, file.name)
                return
            if depth == 1:
                raise UnreadableDocument(f"{name!r} is a zip in a zip in a zip: unpack it and give the files in it")
            yield from self.members(file, name, depth - 1)
        except UnreadableDocument as error:
            yield Unpacked(name, "", str(error))
        file.unlink(missing_ok=True)


def _extract(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str, file: Path) -> None:
    if entry.flag_bits & _ENCRYPTED:
        raise UnreadableDocument(f"{name!r} is encrypted: give it without the password")
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise UnreadableDocument(f"{name!r} is a link to another file: give that file")
    try:
        with room(file), opened.open(entry) as packed, file.open("wb") as out:
            shutil.copyfileobj(packed, out)
    except (zipfile.BadZipFile, zlib.error, LZMAError, EOFError, NotImplementedError, ValueError, OSError) as error:
        raise UnreadableDocument(f"{name!r} is damaged, or packed in a way that is not read: pack it again") from error


def _names(entries: list[zipfile.ZipInfo]) -> list[str]:
    """Relative, without "..", a drive or line breaks; "" for what is hidden, as in folders.

    A name that is not marked as UTF-8 is in the encoding of whoever packed it, the same for all of them.
    """
    unmarked = [entry.filename for entry in entries if not entry.flag_bits & _UTF8 and not entry.filename.isascii()]
    raw = "\n".join(" ".join(name.split()) for name in unmarked).encode("cp437", "replace")  # what zipfile took it for
    try:
        guessed = decode(raw, "names").split("\n") if unmarked else []
    except UnreadableDocument:  # they are no text: the files are had all the same
        guessed = unmarked
    known = dict(zip(unmarked, guessed, strict=False))
    return [_safe(known.get(entry.filename, entry.filename)) for entry in entries]


def _safe(name: str) -> str:
    parts = [part for part in _SLASHES.split(" ".join(_DRIVE.sub("", name).split())) if part not in ("", ".", "..")]
    return "" if any(part.startswith((".", "__MACOSX")) for part in parts) else "/".join(parts)
