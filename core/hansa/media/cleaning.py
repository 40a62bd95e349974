"""Deletes files that no event names any more, and what crashes leave behind."""

from __future__ import annotations

from collections.abc import Iterable

from hansa.bus.media_references import MEDIA
from hansa.environment import Environment
from hansa.media.bus_access import BusAccess
from hansa.media.files import MediaFiles
from hansa.model.media_sources import sources_of
from hansa.model.ref import NativeId
from hansa.store.base import Delete, Row, ScopedStore

#: A file that no event names is deleted after this time, and bytes that no file has after that one (ms).
UNNAMED_TTL_MS, ORPHAN_TTL_MS = 86_400_000, 3_600_000
#: Files that one sweep looks at, and parts of the folder (of 256).
MAX_FILES_A_SWEEP, _PARTS_A_SWEEP = 2_000, 11
#: References of one file, or of one event, that are looked at together.
_PAGE_SIZE = 500


class MediaCleaner:
    """A file is deleted with the last event that names it."""

    def __init__(self, store: ScopedStore, files: MediaFiles, access: BusAccess, seams: Environment) -> None:
        self._store = store
        self._files = files
        self._access = access
        self._clock = seams.clock
        #: Where sweeps begin: by chance at first, so that restarts do not hide a part of the files.
        self.position = seams.random.bytes(2).hex()
        self._part = seams.random.bytes(1)[0]

    async def release_files(self, event_ids: Iterable[str]) -> int:
        """Deletes the files that only these events named, if they do not name them any more. Returns how many
        files were deleted.
        """
        removed = 0
        for event_id in event_ids:
            rows = await self._store.scan("reference", index=("event",), equal=(event_id,), limit=_PAGE_SIZE)
            removed += await self._release_rows(rows)
        return removed

    async def _release_rows(self, rows: list[Row]) -> int:
        ended = [row for row in rows if not await self._is_named(row)]
        if not ended:
            return 0
        await self._store.commit([Delete("reference", row.key) for row in ended])
        removed = 0
        for file in sorted({str(row.key[0]) for row in ended}):
            removed += await self._files.remove_file(file)
        for _ in range(removed):
            self._access.count("media_deleted")
        return removed

    async def _is_named(self, row: Row) -> bool:
        file, event_id = str(row.key[0]), str(row.key[1])
        event = await self._access.names.read(event_id)
        return event is not None and NativeId(MEDIA, file) in sources_of(event.content)

    async def sweep_files(self) -> int:
        """Looks at the next files, and at the next parts of the folder. Returns the number of files that
        were deleted.
        """
        now, removed = self._clock.now(), 0
        rows = await self._store.scan("file", after=self.position, limit=MAX_FILES_A_SWEEP)
        self.position = str(rows[-1].key[0]) if len(rows) == MAX_FILES_A_SWEEP else ""
        for row in rows:
            if int(row.fields["stored"] or 0) > now - UNNAMED_TTL_MS:
                continue
            references = await self._store.scan("reference", equal=row.key, limit=_PAGE_SIZE)
            if references:
                removed += await self._release_rows(references)
            else:
                removed += await self._files.remove_file(str(row.key[0]))
        for _ in range(_PARTS_A_SWEEP):
            self._part = (self._part + 1) % 256
            await self._files.remove_orphan_bytes(self._part, now - ORPHAN_TTL_MS)
        return removed
