"""The errors for clients after another server refused a request of this server. SPEC: server-server API, the
errors of "Joining Rooms", "Knocking upon a room" and "Inviting to a room".

An errcode of another server is about this server: a client that saw its M_UNKNOWN_TOKEN would log out. The
errcodes that the specification has passed on to clients are named here, and no others reach a client.
"""

from __future__ import annotations

from hansa import CannotOpenRoom, Refusal, RefusalCode, RemoteProtocolError

from hansa_matrix.client_api.http import error_from_refusal
from hansa_matrix.errors import MatrixError, matrix_error
from hansa_matrix.federation.client import RemoteError

#: Errcodes of ``make_join``, ``make_knock`` and the requests after them that a client is told.
_ROOM_ENTRY = frozenset(
    {
        "M_BAD_STATE",
        "M_FORBIDDEN",
        "M_INCOMPATIBLE_ROOM_VERSION",
        "M_NOT_FOUND",
        "M_UNABLE_TO_AUTHORISE_JOIN",
        "M_UNABLE_TO_GRANT_JOIN",
    }
)
#: Codes for a wrong request of this server, which a client can do nothing about.
_OUR_MISTAKE = frozenset({"M_INVALID_PARAM", "M_MISSING_PARAM"})
#: Errcodes with which another server refuses a file, by status.
_FILE = {403: "M_FORBIDDEN", 404: "M_NOT_FOUND", 413: "M_TOO_LARGE"}


def room_entry_error(problem: CannotOpenRoom) -> RemoteProtocolError:
    """The answer to a join or knock that failed: with the errcode and room version of the server that refused
    it, where the specification has them passed on. Raises ``Busy`` where a rate refused it.
    """
    cause = problem.__cause__
    if isinstance(cause, RemoteError) and cause.hint in {400, 403, 404}:
        if cause.code in _ROOM_ENTRY:
            more = {"room_version": cause.room_version} if cause.room_version else {}
            return matrix_error(cause.hint, cause.code, problem.refusal.text, **more)
        if cause.code in _OUR_MISTAKE:
            return matrix_error(502, "M_UNKNOWN", problem.refusal.text)
    return error_from_refusal(problem.refusal)


def invite_error(refusal: Refusal) -> RemoteProtocolError:
    """The answer to an invite that failed. SPEC: client-server API, ``POST /rooms/{roomId}/invite``: the
    server of the invited user may not support the room version. Raises ``Busy`` where a rate refused it.
    """
    if refusal.code is RefusalCode.UNSUPPORTED:
        return matrix_error(400, "M_UNSUPPORTED_ROOM_VERSION", refusal.text)
    return error_from_refusal(refusal)


def file_error(problem: RemoteError) -> MatrixError:
    """The answer where another server does not give a file."""
    status = problem.hint if problem.hint in _FILE else 502
    return matrix_error(status, _FILE.get(status, "M_UNKNOWN"), problem.reason)
