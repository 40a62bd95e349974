"""Faults of the database by kind: the errors of its drivers as one error of this store."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from enum import StrEnum
from typing import ParamSpec, TypeVar

from hansa.store.base import StoreError

T = TypeVar("T")
P = ParamSpec("P")


class FaultKind(StrEnum):
    """Why the database cannot do what it could do a moment ago."""

    FULL = "full"
    LOCKED = "locked"
    DAMAGED = "damaged"
    READ_ONLY = "read-only"
    #: The role lacks a right: the configuration of the database is wrong.
    FORBIDDEN = "forbidden"
    AWAY = "away"
    FAILING = "failing"
    #: Another process has the database.
    LOST = "lost"
    #: It is not known whether something was kept.
    UNKNOWN = "unknown"


class StoreFault(StoreError):
    """The database failed, whatever was asked of it. The text may name files and hold words of the driver: it
    is for the operator's log. A peer or client is told ``hansa.http.connection``'s answer and nothing of it.
    """

    def __init__(self, kind: FaultKind, text: str) -> None:
        super().__init__(f"the database is {kind.value}: {text}")
        self.kind = kind


class StoreLost(StoreFault):
    """Another process has taken the database over: nothing can be written any more, and data in memory will
    soon be out of date. The process ends at once and sends nothing more.
    """

    def __init__(self, text: str = "another process has taken it over, so that this one ends") -> None:
        super().__init__(FaultKind.LOST, text)


class ResultUnknown(StoreFault):
    """It is not known whether a batch was kept, and it cannot be found out. Data in memory cannot be trusted,
    so that the process ends, and starts from the store. A store that can find out does so before it answers
    (ADR 15), and raises this when it is closed meanwhile.
    """

    def __init__(self, text: str) -> None:
        super().__init__(FaultKind.UNKNOWN, text)


#: Primary result codes of SQLite (https://www.sqlite.org/rescode.html).
_SQLITE = {
    3: FaultKind.READ_ONLY,  # PERM
    5: FaultKind.LOCKED,  # BUSY
    6: FaultKind.LOCKED,  # LOCKED
    8: FaultKind.READ_ONLY,  # READONLY
    11: FaultKind.DAMAGED,  # CORRUPT
    13: FaultKind.FULL,  # FULL
    14: FaultKind.AWAY,  # CANTOPEN
    26: FaultKind.DAMAGED,  # NOTADB
}


_IOERR = 10


def sqlite_fault(
    error: sqlite3.Error, why: Callable[[], FaultKind] = lambda: FaultKind.FAILING
) -> StoreFault:
    """An error of SQLite as a fault; ``why`` is asked where a file could not be read or written."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    kind = why() if code == _IOERR else _SQLITE.get(code, FaultKind.FAILING)
    return StoreFault(kind, str(error)[:300])


def faulting(
    work: Callable[P, T], why: Callable[[], FaultKind] = lambda: FaultKind.FAILING
) -> Callable[P, T]:
    """The same work, whose errors of SQLite are faults; ``why`` as in ``sqlite_fault``."""

    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return work(*args, **kwargs)
        except sqlite3.Error as error:
            raise sqlite_fault(error, why) from error

    return run


#: Names of MongoDB's errors (``codeName``).
_MONGO = {
    "OutOfDiskSpace": FaultKind.FULL,
    "AtlasError": FaultKind.FULL,
    "LockTimeout": FaultKind.LOCKED,
    "LockFailed": FaultKind.LOCKED,
    "LockBusy": FaultKind.LOCKED,
    "Unauthorized": FaultKind.FORBIDDEN,
    "DataCorruptionDetected": FaultKind.DAMAGED,
    "ChecksumMismatch": FaultKind.DAMAGED,
    "HostUnreachable": FaultKind.AWAY,
    "HostNotFound": FaultKind.AWAY,
    "NetworkTimeout": FaultKind.AWAY,
    "NotWritablePrimary": FaultKind.AWAY,
    "NotPrimaryNoSecondaryOk": FaultKind.AWAY,
    "PrimarySteppedDown": FaultKind.AWAY,
    "InterruptedAtShutdown": FaultKind.AWAY,
    "ShutdownInProgress": FaultKind.AWAY,
    "WriteConcernFailed": FaultKind.AWAY,
    "WriteConcernTimeout": FaultKind.AWAY,
    "UnsatisfiableWriteConcern": FaultKind.AWAY,
}


def mongo_kind(error: Exception) -> FaultKind:
    """The kind of an error of MongoDB's driver, which need not be installed."""
    if any(kind.__name__ == "ConnectionFailure" for kind in type(error).__mro__):
        return FaultKind.AWAY
    details = getattr(error, "details", None) or {}
    named = (details.get("writeErrors") or [details])[0] if isinstance(details, dict) else {}
    name = str(named.get("codeName", "") or details.get("codeName", ""))
    return _MONGO.get(name, FaultKind.FAILING)


#: SQLSTATEs of PostgreSQL, or what they begin with
#: (https://www.postgresql.org/docs/current/errcodes-appendix.html). The driver's own errors have none, or
#: class 08: nothing was heard of the server.
_POSTGRES = {
    "": FaultKind.AWAY,
    "08": FaultKind.AWAY,
    "25006": FaultKind.READ_ONLY,  # read_only_sql_transaction
    "42501": FaultKind.FORBIDDEN,  # insufficient_privilege
    "53100": FaultKind.FULL,  # disk_full
    "53300": FaultKind.AWAY,  # too_many_connections
    "55P03": FaultKind.LOCKED,  # lock_not_available
    "57014": FaultKind.AWAY,  # query_canceled: it took longer than it may
    "57P0": FaultKind.AWAY,  # shut down, crashed, not up yet
    "58P01": FaultKind.DAMAGED,  # undefined_file
    "XX001": FaultKind.DAMAGED,  # data_corrupted
    "XX002": FaultKind.DAMAGED,  # index_corrupted
}


def postgres_kind(sqlstate: str) -> FaultKind:
    """The kind of an error of PostgreSQL, by its SQLSTATE; empty: the server did not answer."""
    for known in (sqlstate, sqlstate[:4], sqlstate[:2]):
        if known in _POSTGRES:
            return _POSTGRES[known]
    return FaultKind.FAILING
