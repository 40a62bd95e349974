"""Answers links to files on the public port: checks what a link names at each request, then streams it.

A link gives a person what its event shows them now: nothing once the event is retracted, withheld from the
link's people, or the link is cut.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

from hansa.api.media import MediaStream, MediaUnavailable
from hansa.environment import Clock, Request, Response
from hansa.http.router import Router
from hansa.media.bus_access import BusAccess
from hansa.media.link_keys import LinkKeys
from hansa.media.opener import MediaOpener
from hansa.media.signed_links import LinkClaim, file_tag, link_tag, verify_token
from hansa.model.addresses import neighbourhood
from hansa.model.content import Attachment, attachments_of
from hansa.model.crossing import MediaTransfer
from hansa.model.events import Link, RefusalCode
from hansa.model.media_types import INLINE, UNKNOWN_TYPE, content_disposition, parse_byte_range, sanitise_name

PREFIX = "/_hansa/media"
#: Servers of a link's people that policies are asked about for one answer. A file for the people of more is
#: refused where there are policies.
MAX_SERVERS_ASKED = 1000
_HEADERS = {
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, no-store",
}
_STATUS: Mapping[RefusalCode, int] = {
    RefusalCode.NOT_FOUND: 404,
    RefusalCode.FORBIDDEN: 403,
    RefusalCode.POLICY: 403,
    RefusalCode.RATE: 429,
    RefusalCode.TOO_LARGE: 502,
    RefusalCode.UNREACHABLE: 502,
    RefusalCode.BUSY: 503,
}


class LinkRefused(Exception):
    """A link opens nothing now: the status of the answer, and its text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class LinkEndpoint:
    """``GET /_hansa/media/TOKEN/NAME``. The name is for people; the token alone decides."""

    def __init__(self, keys: LinkKeys, clock: Clock, access: BusAccess, opener: MediaOpener) -> None:
        self._keys = keys
        self._clock = clock
        self._access = access
        self._opener = opener

    def add_routes(self, router: Router) -> None:
        """Registers the endpoint."""
        for pattern in (f"{PREFIX}/{{token}}", f"{PREFIX}/{{token}}/{{name}}"):
            router.add("GET", pattern, self.answer_link, max_body=0)

    async def answer_link(self, request: Request) -> Response:
        """Answers one request with the file, a part of it, or the reason why there is none."""
        request.reads_only()
        try:
            answer = await self._open_link(request)
        except LinkRefused as refused:
            answer = _to_text(refused.status, refused.text)
        except MediaUnavailable as error:
            answer = _to_text(_STATUS.get(error.refusal.code, 502), error.refusal.text)
        self._access.count("media_links", status=str(answer.status))
        return answer

    async def _open_link(self, request: Request) -> Response:
        claim = verify_token(request.path["token"], self._keys.keys)
        if claim is None:
            raise LinkRefused(404, "there is no such file")
        if claim.until * 1000 <= self._clock.now():
            raise LinkRefused(410, "this link has ended")
        # Before anything is asked: a link that is opened again and again asks policies no faster than this.
        with self._opener.link_slots.hold_slot(neighbourhood(request.remote)):
            attachment, link = await self._find_attachment(claim)
            assert attachment.source is not None
            if self._access.decisions.policies:
                await self._require_allowed(attachment, link)
        return await self._open_attachment(request, attachment, link)

    async def _require_allowed(self, attachment: Attachment, link: Link) -> None:
        """Asks the policies about the file, for each server of the link's people."""
        servers = self._access.servers_of(link)
        if len(servers) > MAX_SERVERS_ASKED:
            raise LinkRefused(403, f"the policies cannot be asked about {len(servers)} servers")
        for server in servers:
            crossing = MediaTransfer(
                network=link.native.network,
                server=server,
                media=str(attachment.source),
                outbound=True,
                type=attachment.media_type,
                size=attachment.size,
                name=attachment.name,
            )
            verdict = await self._access.decisions.judge_and_store(crossing)
            if not verdict.allowed:
                raise LinkRefused(403, verdict.text)

    async def _find_attachment(self, claim: LinkClaim) -> tuple[Attachment, Link]:
        event = await self._access.names.read(claim.event_id)
        named = attachments_of(event.content) if event is not None else ()
        attachment = next(
            (one for one in named if one.source is not None and file_tag(one.source) == claim.file_tag), None
        )
        room = self._access.find_room(event.room) if event is not None else None
        link = (
            next(
                (one for one in room.links.values() if link_tag(one.id, one.judged_from) == claim.link_tag),
                None,
            )
            if room
            else None
        )
        if event is None or attachment is None or room is None or link is None:
            raise LinkRefused(410, "the message with this file was removed")
        if not await self._access.rejudging.may_show(room, link, event):
            raise LinkRefused(403, "this file is withheld")
        return attachment, link

    async def _open_attachment(self, request: Request, attachment: Attachment, link: Link) -> Response:
        assert attachment.source is not None
        source, network, share = attachment.source, link.native.network, neighbourhood(request.remote)
        stream = await self._opener.open_linked(source, network, share)
        asked = request.headers.get("range", "") if request.method == "GET" and stream.size else ""
        # Without a validator no condition can hold: the answer is the whole file then.
        part = None if "if-range" in request.headers else parse_byte_range(asked, stream.size)
        if request.method == "HEAD" or part is not None:
            await stream.chunks.aclose()
        if part is not None:
            if part.start == part.stop:
                refusal = _to_text(416, f"the file has {stream.size} bytes")
                headers = {**refusal.headers, "Content-Range": f"bytes */{stream.size}"}
                return Response(
                    status=416, body=refusal.body, headers=headers, content_type=refusal.content_type
                )
            stream = await self._opener.open_linked(
                source, network, share, first=part.start, last=part.stop - 1
            )
        chunks = _nothing() if request.method == "HEAD" else stream.chunks
        return _to_response(stream, attachment, part, chunks)


def _to_response(
    stream: MediaStream, attachment: Attachment, part: range | None, chunks: AsyncGenerator[bytes]
) -> Response:
    kind = stream.media_type if stream.media_type in INLINE else UNKNOWN_TYPE
    name = sanitise_name(attachment.name) or sanitise_name(stream.name)
    headers = {**_HEADERS, "Content-Disposition": content_disposition(kind, name)}
    if stream.size:
        headers["Accept-Ranges"] = "bytes"
        headers["Content-Length"] = str(len(part) if part is not None else stream.size)
    if part is not None:
        headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{stream.size}"
    status = 206 if part is not None else 200
    return Response(status=status, headers=headers, content_type=kind, chunks=chunks)


def _to_text(status: int, text: str) -> Response:
    return Response(
        status=status, body=text.encode(errors="replace"), headers=_HEADERS, content_type="text/plain"
    )


async def _nothing() -> AsyncGenerator[bytes]:
    return
    yield b""
