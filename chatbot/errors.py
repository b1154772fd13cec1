"""Errors, by who can put them right. Each message says what is wrong, with which value, and what to do.

Whatever is not a `MarginaliaError` is a bug of ours.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NO_ROOM = frozenset(getattr(errno, name) for name in ("ENOSPC", "EDQUOT") if hasattr(errno, name))
_SQLITE_FULL = 13  # also Chroma's words, whose store is SQLite too: "(code: 13) database or disk is full"
_SQLITE_FAILED = frozenset((10, 14))  # SQLITE_IOERR, SQLITE_CANTOPEN: where a file beside the database found no room
_SAID = ("database or disk is full", "no space left on device", "disk quota exceeded")
_NEXT_TO_NOTHING = 64 * 1024  # bytes free: less than SQLite's files beside a database begin with


class MarginaliaError(Exception):
    """Any error that a person can do something about."""


class InputError(MarginaliaError):
    """What was typed or uploaded cannot be used: the person changes it."""


class UnusableUtterance(InputError):
    """The question is empty or too long."""


class UnreadableDocument(InputError):
    """A file gives no text: empty, encrypted, truncated, too large, or of a type that is not read."""


class ReadingInterrupted(UnreadableDocument):
    """Reading a file took too long, or its process was killed: on a machine with less to do it may go well."""


class PackedFiles(UnreadableDocument):
    """A zip of files, which is no document itself: `chatbot.parse.unpack` takes them out."""


class UnknownDocument(InputError):
    """No document has this id."""


class UnknownCollection(InputError):
    """No collection has this name."""


class NameTaken(InputError):
    """Another document of this name, with other content, is there already; or another collection."""


class UnreadableData(InputError):
    """A file given to a command (conversation, corpus, queries, judgements) is not as it should be."""


class SetupError(MarginaliaError):
    """The installation or its settings must change."""


class WrongSetting(SetupError):
    """A setting is unknown or has a value that cannot be used."""


class MissingModel(SetupError):
    """Weights are not where the settings say, or cannot be fetched."""


class BrokenModel(SetupError):
    """The generator gives no probabilities: its weights are damaged, or overflow in their number format."""


class TrainingFailed(MarginaliaError):
    """A training cannot go on; what it saved before stays usable."""


class DiskFull(SetupError):
    """There is no room where something is written. What was being written is not there; what was there, still is."""


class HomeInUse(SetupError):
    """Another process owns the home folder."""


class HomeDamaged(SetupError):
    """The home folder's files cannot be read, or were written by another version or embedder."""


class StoreUnreachable(SetupError):
    """The Chroma server named in the settings does not answer."""


@contextmanager
def room(where: str | os.PathLike[str], enough: int = 0) -> Iterator[None]:
    """Raises DiskFull in place of whatever says that the disk of `where`, a file or folder, is full. `enough`: bytes;
    where fewer are free, whatever is raised is taken to say so, as a library needs that does not say why it failed."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, MarginaliaError) and (is_full(error, where) or _free(where) < enough):
            raise full(where) from error
        raise


def full(where: str | os.PathLike[str]) -> DiskFull:
    return DiskFull(
        f"the disk that holds {os.fspath(where)!r} is full: make room there, and try again if it does not go on by "
        "itself"
    )


def is_full(error: BaseException, where: str | os.PathLike[str] = "") -> bool:
    """Whether a library's error says that no room was left. `where`: what was written to, since SQLite, where a file
    beside the database found no room, says only that it failed."""
    if isinstance(error, OSError):
        return error.errno in _NO_ROOM
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and code & 0xFF in _SQLITE_FAILED:
        return bool(where) and _free(where) < _NEXT_TO_NOTHING
    return (code is not None and code & 0xFF == _SQLITE_FULL) or any(said in str(error).lower() for said in _SAID)


def _free(where: str | os.PathLike[str]) -> int:
    """Bytes that we may write there; of a path that is not there yet, in the folder that it will lie in."""
    place = Path(where).absolute()
    return shutil.disk_usage(next(folder for folder in (place, *place.parents) if folder.exists())).free
