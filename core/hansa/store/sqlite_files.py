"""The files of an open SQLite database: whether what is written goes to where it will be found again."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from hansa.store.disk_errors import why
from hansa.store.faults import FaultKind, StoreFault

#: Bytes of the log of which it is said that another process, which reads for long, keeps it from being
#: copied.
LOG_LARGE = 256 * 1024 * 1024
_log = logging.getLogger("hansa.store")


class SqliteFiles:
    """The database and its log, which is there once something was written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._where = str(path)
        self._log_path = Path(f"{path}-wal")
        self._told = False
        #: True if one of them is missing.
        self.lost = False
        self._opened = self._file_identity()

    def _file_identity(self) -> tuple[tuple[int, int], ...]:
        found = [name.stat() for name in (self._path, self._log_path)]
        if (found[1].st_size > LOG_LARGE) is not self._told:
            self._warn_of_log_size(found[1].st_size)
        return tuple((one.st_dev, one.st_ino) for one in found)

    def same(self) -> None:
        """Raises StoreFault where one of them is another file now, or none."""
        try:
            self.lost = self._file_identity() != self._opened
        except OSError:
            self.lost = True
        self._raise_if_lost()

    def kept(self) -> None:
        """The same of the database alone, after a commit: one question, since each takes microseconds."""
        try:
            found = os.stat(self._where)  # noqa: PTH116  # a Path costs as much again
            self.lost = (found.st_dev, found.st_ino) != self._opened[0]
        except OSError:
            self.lost = True
        self._raise_if_lost()

    def _warn_of_log_size(self, size: int) -> None:
        self._told = size > LOG_LARGE
        if self._told:
            text = "%s has %d MiB: another process reads the database for long, end it"
            _log.warning(text, self._log_path, size // 1024 // 1024)

    def _raise_if_lost(self) -> None:
        if self.lost:
            text = f"{self._path} or its log is not the file any more that was opened"
            raise StoreFault(FaultKind.AWAY, text)

    def why(self) -> FaultKind:
        """Returns the kind of fault of the files' disk."""
        return why((self._path, self._log_path))
