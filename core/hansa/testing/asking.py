"""Questions to a plugin in a test: a policy about a crossing, a network by HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from types import ModuleType
from typing import Any

from hansa.app import App
from hansa.environment import Request, Response
from hansa.http.listener import Dispatcher
from hansa.model.crossing import Crossing
from hansa.model.verdict import Verdict
from hansa.setup import PolicySetup
from hansa.testing.harness import run_hansa


async def judged(plugin: ModuleType, crossing: Crossing, **options: Any) -> Verdict:
    """Returns the verdict of a policy about a crossing, as a running Hansa asks it. ``options`` are its
    table.
    """
    setup = PolicySetup(name=plugin.__name__, module=plugin, options=plugin.Config.model_validate(options))
    async with run_hansa({}, policies=[setup]) as app:
        return await app.decisions.judge_and_store(crossing)


async def requested(
    app: App,
    method: str,
    target: str,
    body: bytes = b"",
    *,
    host: str = "",
    headers: Mapping[str, str] | None = None,
) -> tuple[Response, int]:
    """The answer to an HTTP request, and how many bytes of its body were read for it. ``host`` is the server
    name that is asked.
    """
    read_bytes = 0
    lower = {name.lower(): value for name, value in (headers or {}).items()}
    request = Request(
        method=method,
        target=target,
        host=host,
        headers=lower,
        authorizations=[lower["authorization"]] if "authorization" in lower else [],
        remote="192.0.2.1",
    )

    async def read(limit: int) -> bytes | None:
        nonlocal read_bytes
        read_bytes = min(len(body), limit)
        return body if len(body) <= limit else None

    async def stream(limit: int) -> AsyncIterator[bytes]:
        nonlocal read_bytes
        read_bytes = min(len(body), limit)
        yield body[:limit]

    answer = await Dispatcher(app.routers, app.count).answer(request, read, stream)
    return answer, read_bytes
