"""The errors that a disk reports itself, where SQLite says of a write only that it failed."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Sequence
from pathlib import Path

from hansa.store.faults import FaultKind

_KINDS = {
    errno.ENOSPC: FaultKind.FULL,
    errno.EDQUOT: FaultKind.FULL,
    errno.EFBIG: FaultKind.FULL,
    errno.EROFS: FaultKind.READ_ONLY,
    errno.EACCES: FaultKind.READ_ONLY,
    errno.EPERM: FaultKind.READ_ONLY,
    errno.ENOENT: FaultKind.AWAY,
}
_PAGE_SIZE = 4096


def why(files: Sequence[Path]) -> FaultKind:
    """Why the folder of some files, or one of them, takes no more; ``FAILING`` if that cannot be told."""
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    try:
        largest = max((file.stat().st_size for file in files if file.exists()), default=0)
        if most != resource.RLIM_INFINITY and largest + _PAGE_SIZE > most:
            return FaultKind.FULL
        _write_probe_file(files[0].with_name(f"{files[0].name}.try"))
    except OSError as error:
        return _KINDS.get(error.errno or 0, FaultKind.FAILING)
    return FaultKind.FAILING


def _write_probe_file(path: Path) -> None:
    handle = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    try:
        os.write(handle, bytes(_PAGE_SIZE))
        os.fsync(handle)
    finally:
        os.close(handle)
        path.unlink()
