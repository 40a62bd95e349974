"""Error answers of the federation and client APIs. SPEC: client-server API, "Standard error response"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from hansa import Busy, RemoteProtocolError, Response, Verdict, decision_fields


class MatrixError(RemoteProtocolError):
    """An error answer of this server: ``hint`` is its status, ``code`` its errcode, ``more`` further keys of
    its body. The error answer of another server is ``federation.client.RemoteError``.
    """

    def __init__(self, status: int, code: str, text: str, more: Mapping[str, Any]) -> None:
        super().__init__(text, hint=status, code=code)
        self.more = more


def matrix_error(status: int, code: str, text: str, **more: Any) -> MatrixError:
    """An error answer; ``more`` are further keys of its body."""
    return MatrixError(status, code, text, more)


def forbidden_error(text: str, decision: str = "") -> RemoteProtocolError:
    """The error answer 403, with the decision where a policy made it."""
    return matrix_error(403, "M_FORBIDDEN", text, **decision_fields(decision))


def denial_error(verdict: Verdict) -> Exception:
    """The error answer of a denial: 403 with the decision, or ``Busy`` where a rate would allow it later."""
    if verdict.retry_after:
        return Busy(verdict.text, after=verdict.retry_after, decision=verdict.decision)
    return forbidden_error(verdict.text, verdict.decision)


def json_response(value: Any, status: int = 200) -> Response:
    """An answer."""
    return Response(status=status, body=value if isinstance(value, bytes) else orjson.dumps(value))


def error_response(problem: RemoteProtocolError) -> Response:
    """An error as the answer that says so. SPEC: client-server API, "Standard error response"."""
    more = problem.more if isinstance(problem, MatrixError) else {}
    value = {"errcode": problem.code or "M_UNKNOWN", "error": problem.reason, **more}
    return json_response(value, problem.hint)
