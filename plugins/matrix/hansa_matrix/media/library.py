"""What files are here: of this server for good, of others for as long as somebody looks at them."""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass

import orjson
from hansa import Blob, Delete, NetworkContext, NoBlob, Put, Row, Value

from hansa_matrix.proto.media import Mxc, media_type, plain_name

_PAGE = 500
#: A remote file's last use is noted once in so many ms.
_NOTED_EVERY = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A file that is here. ``used`` is when it was asked for last (ms)."""

    mxc: Mxc
    blob: Blob
    type: str
    name: str
    used: int


class Library:
    """Files by their address; the bytes are in ``ctx.blobs``, once however many addresses they have."""

    def __init__(self, ctx: NetworkContext, server: str) -> None:
        self._ctx = ctx
        self.server = server
        self._server = server
        #: Between the last look at who refers to a blob and its removal nobody else begins to refer to it.
        self._one = asyncio.Lock()

    async def add(
        self, chunks: AsyncIterator[bytes], content_type: str, name: str, *, mxc: Mxc | None = None
    ) -> Item:
        """Keep a file, of this server if no other address is given. Raises ``BlobTooLarge``, OSError."""
        mxc = mxc or self._address()
        blob = await self._ctx.blobs.put(chunks, self._ctx.config.max_media)
        kind, name = media_type(content_type), plain_name(name)
        item = Item(mxc=mxc, blob=blob, type=kind, name=name, used=self._ctx.clock.now())
        async with self._one:
            try:
                await self._ctx.blobs.size(blob.digest)
            except NoBlob as error:
                raise OSError("the same file was removed at this moment: try again") from error
            given_out = [Delete("media_reserved", (mxc.media_id,))] if mxc.server == self._server else []
            await self._ctx.store.commit([self._row(item), *given_out])
        return item

    def _address(self) -> Mxc:
        return Mxc(self._server, urlsafe_b64encode(self._ctx.random.bytes(18)).decode())

    async def reserve(self, until: int) -> Mxc:
        """An address of this server for a file that comes before a time (ms)."""
        mxc = self._address()
        await self._ctx.store.commit([Put("media_reserved", (mxc.media_id,), b"", {"until": until})])
        return mxc

    async def reserved(self, mxc: Mxc) -> bool:
        """Whether an address waits for its file."""
        row = await self._ctx.store.get("media_reserved", (mxc.media_id,))
        return row is not None and int(row.fields["until"] or 0) > self._ctx.clock.now()

    @staticmethod
    def _row(item: Item) -> Put:
        fields: dict[str, Value] = {"digest": item.blob.digest, "used": item.used}
        body = orjson.dumps({"size": item.blob.size, "type": item.type, "name": item.name})
        return Put("media", (item.mxc.server, item.mxc.media_id), body, fields)

    async def get(self, mxc: Mxc) -> Item | None:
        """A file if it is here."""
        row = await self._ctx.store.get("media", (mxc.server, mxc.media_id))
        if row is None:
            return None
        item = _item(row)
        now = self._ctx.clock.now()
        if now - item.used > _NOTED_EVERY:
            used = Item(mxc=item.mxc, blob=item.blob, type=item.type, name=item.name, used=now)
            await self._ctx.store.commit([self._row(used)], durability="lazy")
        return item

    def read(self, item: Item) -> AsyncIterator[bytes]:
        """Its bytes. Raises ``NoBlob``."""
        return self._ctx.blobs.read(item.blob.digest)

    async def all(self, server: str = "") -> list[Item]:
        """Those here, of one server or of all; at most 10,000."""
        rows = await self._ctx.store.scan("media", equal=(server,) if server else (), limit=10_000)
        return [_item(row) for row in rows]

    async def remove(self, mxc: Mxc) -> bool:
        """Whether it was here. The bytes go with the last address that they have."""
        async with self._one:
            row = await self._ctx.store.get("media", (mxc.server, mxc.media_id))
            if row is None:
                return False
            digest = str(row.fields["digest"])
            await self._ctx.store.commit([Delete("media", row.key)])
            if not await self._ctx.store.count("media", equal={"digest": digest}):
                await self._ctx.blobs.remove(digest)
        return True

    async def sweep(self) -> None:
        """Let go of files of other servers that nobody asked for in a while: they can be fetched again."""
        until = self._ctx.clock.now() - self._ctx.config.keep_remote_media_for * 1000
        after: Value = None
        while rows := await self._ctx.store.scan(
            "media", index=("used",), after=after, upto=until, limit=_PAGE
        ):
            after = rows[-1].fields["used"]
            for row in rows:
                if row.key[0] != self._server:
                    await self.remove(Mxc(str(row.key[0]), str(row.key[1])))


def _item(row: Row) -> Item:
    kept = orjson.loads(row.body)
    return Item(
        mxc=Mxc(str(row.key[0]), str(row.key[1])),
        blob=Blob(str(row.fields["digest"]), kept["size"]),
        type=kept["type"],
        name=kept["name"],
        used=int(row.fields["used"] or 0),
    )
