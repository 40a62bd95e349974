"""Files at URLs that others name, through the guarded HTTP client: limited in size, time and redirects."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from hansa.api.media import MediaStream, MediaUnavailable
from hansa.bus.policy_engine import PolicyEngine
from hansa.environment import Failure, Http, HttpError, HttpRequest, HttpStream
from hansa.media.web_addresses import WebAddress, parse_web_address, resolve_redirect
from hansa.model.crossing import Crossing, MediaTransfer, PeerConnect
from hansa.model.events import Refusal, RefusalCode, refusal_by
from hansa.model.media_types import parse_file_name, parse_media_type, sanitise_name

MAX_REDIRECTS = 3
#: Seconds for a whole file, redirects included one by one.
FETCH_TIMEOUT_S = 120.0
#: The codings that the HTTP client asks for, and unpacks.
_CODINGS = frozenset({"identity", "gzip", "deflate"})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


def refuse_media(code: RefusalCode, text: str) -> MediaUnavailable:
    """The refusal of a transfer."""
    return MediaUnavailable(Refusal(code=code, text=text))


class MediaFetcher:
    """Fetches files for the people of a network, where the policies let them."""

    def __init__(self, http: Http, decisions: PolicyEngine) -> None:
        self._http = http
        self._decisions = decisions

    async def require_allowed(self, crossing: Crossing) -> None:
        """Raises ``MediaUnavailable`` where the policies deny a crossing."""
        verdict = await self._decisions.judge_and_store(crossing)
        if not verdict.allowed:
            raise MediaUnavailable(refusal_by(verdict))

    @asynccontextmanager
    async def open_url(self, url: str, network: str, max_bytes: int) -> AsyncIterator[MediaStream]:
        """Opens the file at a URL for the people of ``network``. Raises ``MediaUnavailable``, also while it
        is read.
        """
        address = parse_web_address(url)
        if address is None:
            raise refuse_media(RefusalCode.INVALID, "this is not an http or https address of a file")
        async with AsyncExitStack() as stack:
            try:
                address, answer = await self._follow_redirects(stack, address, network, max_bytes)
            except HttpError as error:
                raise _http_refusal(error) from error
            if answer.headers.get("content-encoding", "identity").lower() not in _CODINGS:
                text = f"{address.host} packs the file in a way that nobody asked for"
                raise refuse_media(RefusalCode.UNREACHABLE, text)
            kind, size = parse_media_type(answer.headers.get("content-type")), _length_of(answer.headers)
            named = parse_file_name(answer.headers.get("content-disposition"))
            name = named or sanitise_name(address.file_name)
            if size > max_bytes:
                raise refuse_media(RefusalCode.TOO_LARGE, f"the file is over {max_bytes} bytes")
            await self.require_allowed(
                MediaTransfer(
                    network=network,
                    server=address.host,
                    media=str(address),
                    outbound=False,
                    type=kind,
                    size=size,
                    name=name,
                )
            )
            chunks = _translate_faults(answer.chunks)
            yield MediaStream(media_type=kind, name=name, size=size, chunks=chunks)

    async def _follow_redirects(
        self, stack: AsyncExitStack, address: WebAddress, network: str, max_bytes: int
    ) -> tuple[WebAddress, HttpStream]:
        for _ in range(MAX_REDIRECTS + 1):
            await self._require_host_allowed(address, network)
            hop = AsyncExitStack()
            await stack.enter_async_context(hop)
            answer = await hop.enter_async_context(self._http.stream(_to_request(address, max_bytes)))
            if answer.status == 200:
                return address, answer
            if answer.status not in _REDIRECTS:
                text = f"{address.host} has no such file"
                raise refuse_media(RefusalCode.NOT_FOUND, text)
            target = resolve_redirect(address, answer.headers.get("location", ""))
            await hop.aclose()
            if target is None:
                text = f"{address.host} sends on to what is not an address of a file"
                raise refuse_media(RefusalCode.UNREACHABLE, text)
            address = target
        raise refuse_media(RefusalCode.UNREACHABLE, f"{address.host} sends on over and over")

    async def _require_host_allowed(self, address: WebAddress, network: str) -> None:
        await self.require_allowed(PeerConnect(network=network, server=address.host, outbound=True))
        await self.require_allowed(
            MediaTransfer(network=network, server=address.host, media=str(address), outbound=False)
        )


def _to_request(address: WebAddress, max_bytes: int) -> HttpRequest:
    return HttpRequest(
        method="GET",
        host=address.host,
        port=address.port,
        target=address.target,
        host_header=address.netloc,
        tls_name=address.host if address.is_secure else "",
        timeout=FETCH_TIMEOUT_S,
        max_body=max_bytes,
        share=address.host,
    )


def _length_of(headers: Mapping[str, str]) -> int:
    """The length that an answer states, 0 where it states none that holds for the unpacked bytes."""
    text = headers.get("content-length", "")
    if headers.get("content-encoding", "identity") != "identity":
        return 0
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0


def _http_refusal(error: HttpError) -> MediaUnavailable:
    code = {
        Failure.TOO_LARGE: RefusalCode.TOO_LARGE,
        Failure.GUARDED: RefusalCode.FORBIDDEN,
        Failure.BUSY: RefusalCode.BUSY,
    }.get(error.kind, RefusalCode.UNREACHABLE)
    return refuse_media(code, f"the server of the file {error}")


async def _translate_faults(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    try:
        async for chunk in chunks:
            yield chunk
    except HttpError as error:
        raise _http_refusal(error) from error
