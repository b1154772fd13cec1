"""Zip archives, looked at before anything is unpacked: a small file can unpack to terabytes.

The declared sizes can be trusted for this: `zipfile` never gives more of a member than its declared size.
"""

import zipfile
from pathlib import Path

from chatbot.errors import UnreadableDocument

MAX_MEMBERS = 10_000
MAX_UNPACKED = 512 * 1024**2
MAX_RATIO = 100  # unpacked to packed, as in Apache POI's ZipSecureFile
SMALL = 10 * 1024**2  # what unpacks to less is harmless at any ratio


def members(path: Path, name: str) -> list[str]:
    """The members' names. Raises UnreadableDocument for a bomb, and for an encrypted or damaged archive."""
    found = entries(path, name)
    if any(entry.flag_bits & 1 for entry in found):
        raise UnreadableDocument(f"{name!r} is encrypted: save a copy without the password and give that")
    return [entry.filename for entry in found]


def entries(path: Path, name: str) -> list[zipfile.ZipInfo]:
    """The members, of which some may be encrypted. Raises UnreadableDocument for a bomb or a damaged archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
        raise UnreadableDocument(f"{name!r} is cut short or damaged: save or download it again ({error})") from error
    unpacked = sum(entry.file_size for entry in found)
    packed = max(1, min(path.stat().st_size, sum(entry.compress_size for entry in found)))
    if len(found) > MAX_MEMBERS or unpacked > MAX_UNPACKED or (unpacked > SMALL and unpacked > MAX_RATIO * packed):
        raise UnreadableDocument(
            f"{name!r} would unpack to {unpacked / 1e6:,.0f} MB in {len(found):,} parts, "
            "as a zip bomb does: open it in its own program and save a smaller copy"
        )
    return found
