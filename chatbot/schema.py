"""Whose a SQLite file is, and of which version: brought up to date at once, or refused as it is.

An application id and a version stand in the file's header. It does not know what the tables mean.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from chatbot.errors import HomeDamaged

_WAIT_S = 30.0  # for another process that makes the file, too

Step = Callable[[sqlite3.Connection], None]


@dataclass(frozen=True, slots=True)
class Schema:
    what: str  # "the catalogue", for people
    application: int  # PRAGMA application_id
    steps: tuple[Step, ...]  # the n-th makes version n of version n - 1; the first, of an empty file
    unmarked: str = ""  # a table by which files are known that an earlier version made without an application id

    def check(self, path: Path) -> None:
        """Refuses a file of a later version by its header alone, so that nothing beside it is touched either.

        Raises HomeDamaged.
        """
        if not path.is_file():
            return
        with path.open("rb") as file:
            header = file.read(100)
        version, application = (int.from_bytes(header[at : at + 4], "big") for at in (60, 68))
        if application == self.application and header.startswith(b"SQLite format 3\0"):
            self._refuse_later(version, path)

    def prepare(self, connection: sqlite3.Connection, path: Path) -> None:
        """Every step that is missing, in one transaction: a kill leaves what was there. Raises HomeDamaged."""
        with transaction(connection, "BEGIN"):  # what is read of it is of one moment
            if self._version(connection, path) == len(self.steps):
                return
        _keep_a_log(connection)
        connection.execute("PRAGMA foreign_keys = OFF")  # a table may be made anew
        with transaction(connection):
            for step in self.steps[self._version(connection, path) :]:  # another process may have been quicker
                step(connection)
            connection.execute(f"PRAGMA application_id = {self.application}")
            connection.execute(f"PRAGMA user_version = {len(self.steps)}")
        connection.execute("PRAGMA foreign_keys = ON")

    def _version(self, connection: sqlite3.Connection, path: Path) -> int:
        application, version = (
            int(connection.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("application_id", "user_version")
        )
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        if application != self.application and tables and (application or self.unmarked not in tables):
            raise HomeDamaged(f"{str(path)!r} is another program's database: choose another home with --home")
        if application != self.application:
            return 0
        self._refuse_later(version, path)
        return version

    def _refuse_later(self, version: int, path: Path) -> None:
        if version > len(self.steps):
            raise HomeDamaged(
                f"{self.what} {str(path)!r} is of version {version}, newer than the "
                f"{len(self.steps)} of this program: "
                "update it (pip install --upgrade marginalia-chat), or choose another home with --home"
            )


def _keep_a_log(connection: sqlite3.Connection) -> None:
    """SQLite gives up at once, without its own waiting, where another process is about to do the same."""
    until = time.monotonic() + _WAIT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(0.01)


@contextmanager
def transaction(connection: sqlite3.Connection, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
    """For a connection in autocommit. What fails, the commit itself too, leaves nothing begun."""
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite has rolled back already where the disk failed
            connection.execute("ROLLBACK")
        raise
