"""The profiles of users: names, pictures and any other field.

SPEC: server-server API, "Querying for information"; client-server API, "Profiles" (extensible, v1.16).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import orjson
from hansa import (
    Changed,
    LocalProtocolError,
    LruCache,
    Membership,
    NativeId,
    NetworkContext,
    RemoteProtocolError,
    RoomMember,
    Row,
    change_row,
)

from hansa_matrix.bounds.key_locks import KeyLocks
from hansa_matrix.crossings import Crossings, texts_of_values
from hansa_matrix.federation.client import FederationClient
from hansa_matrix.local.memberships import LocalMemberships
from hansa_matrix.proto import ids
from hansa_matrix.proto.devices import fits_object

MAX_PROFILE = 64 * 1024
#: Fields that are texts: of another server's answer they are read as such, or are not there.
_TEXTS = frozenset(["displayname", "avatar_url"])
_MAX_FIELD = 255
_FETCH_TIMEOUT_S = 10.0
#: Users whose judged profiles are remembered.
_MAX_JUDGED = 10_000


#: The fields of a profile that member events carry.
MEMBER_FIELDS = ("displayname", "avatar_url")


class Profiles:
    """Of people here: what they set, or the name by which they are known in a room. Of others: asked for."""

    def __init__(self, ctx: NetworkContext, client: FederationClient, memberships: LocalMemberships) -> None:
        self._ctx = ctx
        self._client = client
        self._server = client.server
        self._memberships = memberships
        self._crossings = Crossings(ctx)
        #: Profiles that were judged: ``user -> ((generation, hash of the words), whether it may be shown)``.
        self._judged: LruCache[str, tuple[tuple[int, int], bool]] = LruCache(_MAX_JUDGED)
        self._locks = KeyLocks()

    async def local_profile(self, user: str) -> dict[str, Any] | None:
        """Returns all fields of a user of this server, a ghost too; None if there is no such user, or their
        profile was erased.
        """
        if user in self._memberships.erased:
            return None
        row = await self._ctx.store.get("profile", (user,))
        kept: dict[str, Any] = orjson.loads(row.body) if row is not None else {}
        person = self._member_of_home(await self._ctx.home_of(user))
        bridge = self._is_bridge_user(user)
        if person is None and row is None and not bridge and user not in self._memberships.accounts:
            return None
        name = self._ctx.config.bridge_name if bridge else person.name if person is not None else None
        known = {"displayname": name} if name else {}
        found = known | kept
        return found if await self._can_show_profile(user, found) else {}

    def _is_bridge_user(self, user: str) -> bool:
        return user == f"@{self._ctx.config.bridge_user}:{self._server}"

    async def member_content(self, user: str) -> dict[str, Any]:
        """Returns the profile fields that the member events of a local user carry; none for any other
        user.
        """
        if user not in self._memberships.accounts and not self._is_bridge_user(user):
            return {}
        profile = await self.local_profile(user) or {}
        return {key: profile[key] for key in MEMBER_FIELDS if isinstance(profile.get(key), str)}

    async def _can_show_profile(self, user: str, found: Mapping[str, Any]) -> bool:
        """True if the current policies let a profile be shown; each field is asked about once."""
        words = texts_of_values(**found) if self._ctx.has_policies else ()
        if not words:
            return True
        asked = (self._ctx.policy_generation, hash(words))
        known = self._judged.get(user)
        if known is None or known[0] != asked:
            verdict = await self._ctx.check(self._crossings.profile_change(user, words, again=True))
            known = (asked, verdict.allowed)
            self._judged.put(user, known)
        return known[1]

    async def set_by(self, users: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Returns the profiles that some local users set."""
        rows = await self._ctx.store.get_many("profile", [(user,) for user in users])
        return {str(key[0]): orjson.loads(row.body) for key, row in rows.items()}

    def _member_of_home(self, home: NativeId) -> RoomMember | None:
        for link in self._ctx.list_links():
            view = self._ctx.get_view(link.native.id)
            person = view.person(home) if view else None
            if person is not None and person.membership is Membership.JOIN:
                return person
        return None

    async def set_field(self, user: str, field: str, value: Any) -> None:
        """Sets one field of a local user, None to remove it. Raises LocalProtocolError for one too large."""
        if not 0 < len(field.encode()) <= _MAX_FIELD:
            raise LocalProtocolError(f"a profile field's name has 1 to {_MAX_FIELD} bytes")

        def change_field(row: Row | None) -> Changed:
            kept = orjson.loads(row.body) if row is not None else {}
            kept.pop(field, None)
            if value is not None:
                kept[field] = value
            if not fits_object(kept, MAX_PROFILE):
                raise LocalProtocolError(f"a profile has at most {MAX_PROFILE} bytes")
            return Changed(body=orjson.dumps(kept))

        async with self._locks.hold_key(user):
            await change_row(self._ctx.store, "profile", (user,), change_field)

    async def get_profile(self, user: str, field: str = "") -> Mapping[str, Any] | None:
        """Returns all fields of any user, or one; None if there is no such user. Raises
        ``ServerUnreachable``, ``RemoteError``.
        """
        if ids.domain_of(user) == self._server:
            found = await self.local_profile(user)
            return found if found is None or not field else {k: v for k, v in found.items() if k == field}
        target = f"/_matrix/federation/v1/query/profile?user_id={quote(user, safe='')}"
        target += f"&field={quote(field, safe='')}" if field else ""
        answer = await self._client.request("GET", ids.domain_of(user), target, seconds=_FETCH_TIMEOUT_S)
        if not isinstance(answer, dict) or not fits_object(answer, MAX_PROFILE):
            raise RemoteProtocolError("the answer must be a profile")
        answer = {k: v for k, v in answer.items() if k not in _TEXTS or isinstance(v, str)}
        return answer if await self._can_show_profile(user, answer) else {}
