"""Proving who one is, step by step. SPEC: client-server API, "User-Interactive Authentication API"."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hansa import Clock, Random, Request

from hansa_matrix.client_api.account.address_shares import AddressShares
from hansa_matrix.errors import matrix_error

DUMMY, PASSWORD, TOKEN = "m.login.dummy", "m.login.password", "m.login.registration_token"
_MAX_SESSIONS, _MAX_SESSIONS_PER_ADDRESS, _SESSION_TTL_S = 10_000, 100, 900.0

#: Checks the data that a client sends for a stage.
Check = Callable[[Mapping[str, Any]], Awaitable[bool]]


@dataclass(slots=True, eq=False)
class _Session:
    """A session. ``about`` is the request that it is for. ``said`` is the hash of the body that came with the
    first proof: a proof for one body does not count for another.
    """

    about: str
    said: str = ""
    proven: dict[str, Mapping[str, Any]] = field(default_factory=dict)


class UserInteractiveAuth:
    """The sessions of user-interactive authentication, each with the stages that are proven. A session is for
    one request and is used up by the one answer that it allows: if two requests end at once, one gets the
    error that the session is over.
    """

    def __init__(self, clock: Clock, random: Random) -> None:
        self._random = random
        self._sessions: AddressShares[_Session] = AddressShares(
            clock, most=_MAX_SESSIONS, each=_MAX_SESSIONS_PER_ADDRESS, seconds=_SESSION_TTL_S
        )

    async def require_flow(
        self,
        request: Request,
        body: Mapping[str, Any],
        who: str,
        flow: Sequence[str],
        checks: Mapping[str, Check],
    ) -> Mapping[str, Mapping[str, Any]]:
        """Returns the data of each stage of a flow, once every stage is done. Raises the error answer that
        names the stages to do. ``who`` is the user that asks, empty if the user is not known yet.
        """
        auth = body.get("auth")
        given = auth if isinstance(auth, dict) else {}
        about = f"{request.method} {_unversioned_path(request.target)} {who}"
        name = given.get("session")
        session = self._sessions.get(name) if isinstance(name, str) else _Session(about)
        if session is None or session.about != about:
            raise _too_many_sessions()
        if not isinstance(name, str):
            name = self._random.bytes(16).hex()
        elif session.said not in {"", _hash_body(body)}:
            raise _too_many_sessions()
        stage = given.get("type")
        problem: tuple[str, str] | None = None
        if isinstance(stage, str) and stage in flow:
            good = stage not in checks or await checks[stage](given)
            if given.get("session") is not None and self._sessions.get(name) is not session:
                raise _too_many_sessions()  # it was used up meanwhile
            if good and session.said in {"", _hash_body(body)}:
                session.said = _hash_body(body)
                session.proven[stage] = given
            else:
                problem = ("M_FORBIDDEN", "that is not right")
        if problem is None and set(flow) <= session.proven.keys():
            self._sessions.pop(name)
            return session.proven
        self._sessions.put(name, request.remote, session)
        raise _auth_required(name, flow, session, problem)


def _too_many_sessions() -> Exception:
    return matrix_error(400, "M_UNKNOWN", "that session is over, or was for something else")


def _auth_required(
    name: str, flow: Sequence[str], session: _Session, problem: tuple[str, str] | None
) -> Exception:
    code, why = problem or ("M_UNAUTHORIZED", "say who you are")
    body = {
        "session": name,
        "flows": [{"stages": list(flow)}],
        "params": {},
        "completed": sorted(session.proven),
    }
    return matrix_error(401, code, why, **body)


def _unversioned_path(target: str) -> str:
    """A path under whichever version of the API it was asked: they are one endpoint."""
    path = target.partition("?")[0].rstrip("/")
    return path.replace("/_matrix/client/r0/", "/_matrix/client/v3/", 1)


def _hash_body(body: Mapping[str, Any]) -> str:
    """Returns the hash of a body without its ``auth``."""
    rest = {key: value for key, value in body.items() if key != "auth"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
