"""The search for users by name. SPEC: client-server API, "User Directory"."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from hansa import LocalProtocolError, Membership, NetworkContext, PersonMatch, Request, RoomMember

from hansa_matrix.client_api.account.accounts import Accounts, Requester
from hansa_matrix.client_api.http import Handler, RateLimited
from hansa_matrix.errors import matrix_error
from hansa_matrix.proto.auth_rules.state_keys import JOIN_RULES_KEY, MEMBER
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.state_content import avatar_url, display_name, join_rule
from hansa_matrix.rooms.directory.public_rooms import PublicRoomList
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.room import MatrixRoom
from hansa_matrix.users.profiles import Profiles

#: People in one answer, and those whose profile is read for it.
MAX_RESULTS, MAX_PROFILES_READ = 50, 200
#: People that are looked at for one answer, and after how many others get a turn.
MAX_CANDIDATES, _USERS_PER_STEP = 20_000, 500
#: Characters of what is searched for.
_MAX_TERM = 255


@dataclass(slots=True)
class _Look:
    """One search: for what, and whether it ended before everybody was looked at."""

    wanted: str
    cut: bool = False


class UserDirectory:
    """The search for users. ``user_directory`` of the configuration sets its range: no users, users in rooms
    that the caller is in or could join as every user may, or those and all local users. Other networks add
    people by their addresses (``hansa.LooksUp``).
    """

    def __init__(
        self, own: LocalServer, accounts: Accounts, profiles: Profiles, directory: PublicRoomList
    ) -> None:
        self._own = own
        self._ctx: NetworkContext = own.ctx
        self._accounts = accounts
        self._profiles = profiles
        self._directory = directory
        self._rooms = own.rooms

    def routes(self) -> Mapping[tuple[str, str], Handler | RateLimited]:
        """See ``http.EndpointGroup.routes``."""
        return {("POST", "/v3/user_directory/search"): RateLimited(self.search_users)}

    async def search_users(self, caller: Requester, _request: Request, body: Any) -> Any:
        """``POST /user_directory/search``."""
        term, limit = body.get("search_term"), body.get("limit", 10)
        if not isinstance(term, str) or type(limit) is not int:
            raise matrix_error(400, "M_BAD_JSON", "search_term is a string and limit a number")
        most, wanted = max(1, min(limit, MAX_RESULTS)), term[:_MAX_TERM].casefold().lstrip("@")
        allowed = self._ctx.config.user_directory
        if allowed == "off":
            return {"results": [], "limited": False}
        found: dict[str, dict[str, Any]] = {}
        look = _Look(wanted)
        async for user, profile in self._in_rooms(caller.user, look):
            found.setdefault(user, profile)
        if allowed == "accounts" and len(found) <= MAX_PROFILES_READ:
            but = found.keys() | {caller.user}
            found |= {user: profile async for user, profile in self._with_accounts(look, but)}
        for person in await self._ctx.find_people(term[:_MAX_TERM], limit=most):
            try:
                ghost = await self._ctx.get_ghost_id(person.user)
            except LocalProtocolError:  # too long for a user id
                continue
            named = {"displayname": person.name} if person.name else {}
            found.setdefault(ghost, _user_json(ghost, named))
        found.pop(caller.user, None)
        results = sorted(found.values(), key=lambda one: (not _starts_with(one, wanted), one["user_id"]))
        return {"results": results[:most], "limited": look.cut or len(results) > most}

    async def find_people(self, text: str, *, limit: int) -> list[PersonMatch]:
        """See ``hansa.LooksUp.find_people``: people of Matrix that everybody here may find, by the setting
        ``user_directory``: members of published rooms that everybody may join, and accounts.
        """
        allowed, wanted = self._ctx.config.user_directory, text[:_MAX_TERM].casefold().lstrip("@").strip()
        if allowed == "off" or not wanted:
            return []
        look, found = _Look(wanted), dict[str, dict[str, Any]]()
        async for user, profile in self._in_rooms("", look):
            found.setdefault(user, profile)
        if allowed == "accounts" and len(found) <= MAX_PROFILES_READ:
            found |= {user: profile async for user, profile in self._with_accounts(look, set(found))}
        results = sorted(found.values(), key=lambda one: (not _starts_with(one, wanted), one["user_id"]))
        people = list[PersonMatch]()
        for one in results:
            if len(people) >= limit:
                break
            home = await self._ctx.home_of(one["user_id"])
            if home.network == self._ctx.id:  # ghosts are people of other networks
                people.append(PersonMatch(user=home, name=one.get("display_name", "")))
        return people

    async def _in_rooms(self, asker: str, look: _Look) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Those who match, by what they are called in a room and may be shown by now."""
        read, seen, looked, wanted = 0, set[str](), 0, look.wanted
        for room_id in await self._open_to(asker):
            room, view = self._rooms.get(room_id), self._ctx.get_view(room_id)
            if room is None or view is None:
                continue
            if read >= MAX_PROFILES_READ or looked >= MAX_CANDIDATES:
                look.cut = True
                return
            matching: list[str] = []
            for person in list(view.people.values()):
                looked += 1
                if looked % _USERS_PER_STEP == 0:
                    await asyncio.sleep(0)
                if looked > MAX_CANDIDATES or read + len(matching) >= MAX_PROFILES_READ:
                    look.cut = True
                    break
                if person.membership is not Membership.JOIN:
                    continue
                user = await self._ctx.get_ghost_id(person.user)
                if user not in seen and _matches_search(user, person, wanted):
                    matching.append(user)
            read += len(matching)
            async for user, pdu in self._member_events(room, matching):
                profile = _user_json(user, pdu.content)
                if wanted in user.casefold() or wanted in profile.get("display_name", "").casefold():
                    seen.add(user)
                    yield user, profile

    async def _open_to(self, asker: str) -> list[str]:
        """Returns the rooms that a user is in, then those that are published and that every user may join."""
        stays = self._own.memberships.memberships_of(asker).values()
        found = dict.fromkeys(stay.room_id for stay in stays if stay.membership == "join")
        for room_id in await self._directory.list_rooms():
            room = self._rooms.get(room_id)
            if room is None or not room.resident or room_id in found:
                continue
            rules = (await room.events_of(await room.state(), [JOIN_RULES_KEY])).get(JOIN_RULES_KEY)
            if rules is not None and join_rule(rules.content) == "public":
                found[room_id] = None
        return list(found)

    @staticmethod
    async def _member_events(room: MatrixRoom, users: list[str]) -> AsyncIterator[tuple[str, Pdu]]:
        """The member events of some people that may be shown."""
        state = await room.state()
        keys = [key for user in users if (key := (MEMBER, user)) in state]
        async for shown in room.shown_in_steps(state, keys):
            for key, pdu in shown.items():
                if key[0] == MEMBER and key[1] in users:
                    yield key[1], pdu

    async def _with_accounts(
        self, look: _Look, but: frozenset[str] | set[str]
    ) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Those with an account here who match, by what they say of themselves and may be shown by now."""
        named, read, wanted = dict[str, dict[str, Any]](), 0, look.wanted
        users = sorted(self._own.memberships.accounts - but)
        for number, user in enumerate(users):
            if number % _USERS_PER_STEP == 0:
                named = await self._profiles.set_by(users[number : number + _USERS_PER_STEP])
            if read >= MAX_PROFILES_READ or number >= MAX_CANDIDATES:
                look.cut = True
                return
            called = named.get(user, {}).get("displayname")
            if wanted not in user.casefold() and wanted not in str(called or "").casefold():
                continue
            read += 1
            account = await self._accounts.get(user)
            if account is None or account.deactivated:
                continue
            profile = _user_json(user, await self._profiles.local_profile(user) or {})
            if wanted in user.casefold() or wanted in profile.get("display_name", "").casefold():
                yield user, profile


def _matches_search(user: str, person: RoomMember, wanted: str) -> bool:
    return wanted in user.casefold() or wanted in (person.name or "").casefold()


def _user_json(user: str, said: Mapping[str, Any]) -> dict[str, Any]:
    given = {"display_name": display_name(said), "avatar_url": avatar_url(said)}
    return {"user_id": user, **{key: value for key, value in given.items() if value is not None}}


def _starts_with(one: Mapping[str, Any], wanted: str) -> bool:
    """True if a user's display name, or localpart, begins with the search term."""
    named = one.get("display_name", "").casefold(), one["user_id"][1:].casefold()
    return any(name.startswith(wanted) for name in named)
