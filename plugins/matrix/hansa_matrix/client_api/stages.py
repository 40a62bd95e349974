"""Proving who one is, step by step. SPEC: client-server API, "User-Interactive Authentication API"."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from hansa import Clock, Random

from hansa_matrix.federation.server import error

DUMMY, PASSWORD, TOKEN = "m.login.dummy", "m.login.password", "m.login.registration_token"
_MOST, _FOR = 10_000, 900.0

#: Whether what somebody says for a stage will do.
Check = Callable[[Mapping[str, Any]], Awaitable[bool]]


class Stages:
    """What has been proven in which session. A session is for one purpose, so that a proof for something
    small is none for something great.
    """

    def __init__(self, clock: Clock, random: Random) -> None:
        self._clock = clock
        self._random = random
        self._sessions: OrderedDict[str, tuple[float, str, set[str]]] = OrderedDict()

    async def passed(
        self, purpose: str, auth: object, flow: Sequence[str], checks: Mapping[str, Check]
    ) -> None:
        """Return if every stage of a flow is done. Raises the error answer that says what is to be done."""
        given = auth if isinstance(auth, dict) else {}
        session = given.get("session")
        done = self._done(session, purpose)
        stage = given.get("type")
        if isinstance(session, str) and done is None:
            raise error(400, "M_UNKNOWN", "that session is over, or was for something else")
        proven = done if done is not None else set()
        if isinstance(stage, str) and stage in flow:
            if stage not in checks or await checks[stage](given):
                proven.add(stage)
            else:
                raise self._open(purpose, flow, proven, session, ("M_FORBIDDEN", "that is not right"))
        if proven.issuperset(flow):
            if isinstance(session, str):
                self._sessions.pop(session, None)
            return
        raise self._open(purpose, flow, proven, session, None)

    def _done(self, session: object, purpose: str) -> set[str] | None:
        known = self._sessions.get(session) if isinstance(session, str) else None
        if known is None or known[0] < self._clock.monotonic() or known[1] != purpose:
            return None
        return known[2]

    def _open(
        self,
        purpose: str,
        flow: Sequence[str],
        proven: set[str],
        session: object,
        problem: tuple[str, str] | None,
    ) -> Exception:
        name = session if isinstance(session, str) else self._random.bytes(16).hex()
        self._sessions[name] = (self._clock.monotonic() + _FOR, purpose, proven)
        if len(self._sessions) > _MOST:
            self._sessions.popitem(last=False)
        code, why = problem or ("M_UNAUTHORIZED", "say who you are")
        body = {
            "session": name,
            "flows": [{"stages": list(flow)}],
            "params": {},
            "completed": sorted(proven),
        }
        return error(401, code, why, **body)
