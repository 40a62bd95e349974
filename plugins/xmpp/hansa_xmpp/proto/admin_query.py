"""The administration of a room by its people: kicks, bans, voice, ranks and their lists (``muc#admin``).

A rank of the core is an affiliation and a role. ``owner`` and ``admin`` are ranks of their own, ``member`` is
who may enter a members-only room, ``outcast`` is who is banned. The room's authority, or the core where there
is none, decides who may change what.

SPEC: XEP-0045 section 8.2 to 8.5 (kicks, voice), section 9 (bans, members, moderators) and section 10.3 to
10.8 (owners, admins).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from hansa import Content, Member, Membership, NativeId, Role, RoomMember, RoomView, Standing
from slixmpp.jid import JID, InvalidJID

from hansa_xmpp.proto import errors, jid, render
from hansa_xmpp.proto.broadcast import standing_of
from hansa_xmpp.proto.commands import RoomChanges, SendStanzas
from hansa_xmpp.proto.errors import Condition
from hansa_xmpp.proto.muc import Muc
from hansa_xmpp.proto.render import xml_element
from hansa_xmpp.proto.stanza import NS_MUC_ADMIN, Stanza

#: Changes that one IQ asks for, people of a list, and bytes of a reason.
MAX_ITEMS, MAX_LISTED, MAX_REASON = 50, 5_000, 1024

_ITEM, _REASON = f"{{{NS_MUC_ADMIN}}}item", f"{{{NS_MUC_ADMIN}}}reason"
_AFFILIATIONS = frozenset({"owner", "admin", "member", "none", "outcast"})
_ROLES = frozenset({"moderator", "participant", "visitor", "none"})
_RANKS = {"owner": Role.OWNER, "admin": Role.MODERATOR}


class _Refused(Exception):
    def __init__(self, condition: Condition, text: str) -> None:
        super().__init__(text)
        self.condition = condition
        self.text = text


@dataclass(frozen=True, slots=True)
class _Target:
    """The person that an item is about; ``person`` is None for a stranger."""

    user: NativeId
    person: RoomMember | None
    reason: str

    @property
    def role(self) -> Role:
        return self.person.role if self.person is not None else Role.MEMBER

    @property
    def membership(self) -> Membership:
        return self.person.membership if self.person is not None else Membership.LEAVE

    def becomes(self, membership: Membership) -> Member:
        """Another membership, with the name that the person has."""
        return Member(user=self.user, membership=membership, reason=self.reason)


def handle_admin_query(
    stanza: Stanza, query: Element, muc: Muc, view: RoomView
) -> Sequence[SendStanzas | RoomChanges]:
    """Answers a list, or returns the changes that are asked for; every item is checked before any happens."""
    items = query.findall(_ITEM)
    try:
        if not items or len(items) != len(query):
            raise _Refused(errors.BAD_REQUEST, "the query has items and nothing else")
        if len(items) > MAX_ITEMS:
            raise _Refused(errors.POLICY_VIOLATION, f"one query has at most {MAX_ITEMS} items")
        actor = view.person(muc.user(stanza))
        if actor is None or actor.membership is not Membership.JOIN:
            raise _Refused(errors.FORBIDDEN, "you are not in this room")
        if stanza.type == "get":
            return [_list_people(stanza, items, muc, view, actor)]
        contents = [content for item in items for content in _changes(item, muc, view, actor)]
        _require_owner_left(contents, view, actor)
    except _Refused as refused:
        return [SendStanzas(tuple(errors.error_reply(stanza, refused.condition, refused.text)))]
    return [RoomChanges(stanza, actor.user, tuple(contents))]


def _changes(item: Element, muc: Muc, view: RoomView, actor: RoomMember) -> Sequence[Content]:
    affiliation, role = item.get("affiliation", ""), item.get("role", "")
    if bool(affiliation) == bool(role):
        raise _Refused(errors.BAD_REQUEST, "an item has an affiliation or a role")
    if (affiliation and affiliation not in _AFFILIATIONS) or (role and role not in _ROLES):
        raise _Refused(errors.BAD_REQUEST, "there is no such affiliation or role")
    target = _target_of(item, muc, view, by_jid=bool(affiliation))
    made = _by_affiliation(affiliation, target, view) if affiliation else _by_role(role, target)
    if target.user == actor.user and any(isinstance(one, Member) for one in made):
        raise _Refused(errors.CONFLICT, "you cannot remove yourself; leave the room instead")
    return made


def _by_affiliation(affiliation: str, target: _Target, view: RoomView) -> list[Content]:
    made: list[Content] = []
    here, members_only = target.membership, view.facts.join_rule != "public"
    if affiliation == "outcast":
        return [] if here is Membership.BAN else [target.becomes(Membership.BAN)]
    if here is Membership.BAN:
        made.append(target.becomes(Membership.LEAVE))
        here = Membership.LEAVE
    rank = _RANKS.get(affiliation, Role.MEMBER)
    if target.role is not rank and (affiliation in _RANKS or target.role > Role.MEMBER):
        made.append(Standing(user=target.user, role=rank))
    if affiliation == "member" and here in {Membership.LEAVE, Membership.KNOCK}:
        made.append(target.becomes(Membership.INVITE))
    if affiliation == "none" and (
        here in {Membership.INVITE, Membership.KNOCK} or (here is Membership.JOIN and members_only)
    ):
        made.append(target.becomes(Membership.LEAVE))
    return made


def _by_role(role: str, target: _Target) -> list[Content]:
    if role == "none":
        return [target.becomes(Membership.LEAVE)]
    if role == "moderator":
        return [] if target.role >= Role.MODERATOR else [Standing(user=target.user, role=Role.MODERATOR)]
    if target.role >= Role.MODERATOR:
        raise _Refused(errors.NOT_ALLOWED, "an owner or admin is a moderator: take their affiliation first")
    speaks = role == "participant"
    person = target.person
    if person is not None and (person.voice and person.role > Role.VISITOR) is speaks:
        return []
    return [Standing(user=target.user, role=Role.MEMBER if speaks else Role.VISITOR, voice=speaks)]


def _target_of(item: Element, muc: Muc, view: RoomView, *, by_jid: bool) -> _Target:
    reason = item.findtext(_REASON) or ""
    if len(reason.encode(errors="replace")) > MAX_REASON:
        raise _Refused(errors.POLICY_VIOLATION, f"the reason has over {MAX_REASON} bytes")
    address = item.get("jid", "") if by_jid else ""
    if address:
        user = _user_at(address, muc)
    else:
        occupant = muc.roster.by_nick(item.get("nick", ""))
        if occupant is None:
            raise _Refused(errors.NOT_FOUND, "no occupant has this nick")
        user = occupant.user
    return _Target(user, view.person(user), reason)


def _user_at(address: str, muc: Muc) -> NativeId:
    """The person with an address: one of XMPP, or the puppet of one of another network."""
    try:
        bare = JID(address)
    except InvalidJID:
        raise _Refused(errors.JID_MALFORMED, "an item's address is malformed") from None
    gateway = jid.domain_of(muc.room)
    if bare.domain != gateway:
        if not bare.local:
            raise _Refused(errors.NOT_ALLOWED, "a whole domain has no affiliation here: name its users")
        return NativeId(muc.network, bare.bare)
    user = jid.person(bare.bare, gateway)
    if user is None:
        raise _Refused(errors.NOT_FOUND, "nobody has this address")
    return user


def _require_owner_left(contents: Iterable[Content], view: RoomView, actor: RoomMember) -> None:
    """An owner who steps down leaves another one in the room, after everything that the query asks for."""
    ranks, gone = dict[NativeId, Role](), set[NativeId]()
    for content in contents:
        if isinstance(content, Standing):
            ranks[content.user] = content.role
        elif isinstance(content, Member):
            gone.add(content.user)
    if actor.role is not Role.OWNER or ranks.get(actor.user, Role.OWNER) is Role.OWNER:
        return
    if not any(ranks.get(p.user, p.role) is Role.OWNER and p.user not in gone for p in view.joined()):
        raise _Refused(errors.CONFLICT, "you are the only owner; make another person owner before")


def _list_people(
    stanza: Stanza, items: Sequence[Element], muc: Muc, view: RoomView, actor: RoomMember
) -> SendStanzas:
    affiliation, role = items[0].get("affiliation", ""), items[0].get("role", "")
    if len(items) > 1 or bool(affiliation) == bool(role):
        raise _Refused(errors.BAD_REQUEST, "a list is asked for by one affiliation or one role")
    if (role or affiliation == "outcast") and actor.role < Role.MODERATOR:
        raise _Refused(errors.FORBIDDEN, "only moderators may read this list")
    if affiliation in _AFFILIATIONS - {"none"}:
        listed = _by_affiliations(affiliation, muc, view)
    elif role in _ROLES - {"none"}:
        listed = _by_roles(role, muc, view)
    else:
        raise _Refused(errors.BAD_REQUEST, "there is no such list")
    if len(listed) > MAX_LISTED:
        raise _Refused(errors.RESOURCE_CONSTRAINT, f"the list has over {MAX_LISTED} people")
    inner = xml_element("query", NS_MUC_ADMIN, "".join(listed))
    answer = render.stanza("iq", stanza.to.full, [stanza.sender.full], inner, type_="result", id_=stanza.id)
    return SendStanzas((answer,))


def _by_affiliations(affiliation: str, muc: Muc, view: RoomView) -> list[str]:
    members_only = view.facts.join_rule != "public"

    def has(person: RoomMember) -> bool:
        if person.membership is Membership.BAN:
            return affiliation == "outcast"
        if person.membership is Membership.INVITE:
            return affiliation == "member"
        joined = person.membership is Membership.JOIN
        return joined and standing_of(person.role, members_only=members_only)[0] == affiliation

    people = _at_most((p for p in view.people.values() if has(p)), MAX_LISTED + 1)
    return [xml_element("item", affiliation=affiliation, jid=_address_of(p.user, muc)) for p in people]


def _by_roles(role: str, muc: Muc, view: RoomView) -> list[str]:
    members_only = view.facts.join_rule != "public"
    listed = list[str]()
    for occupant in muc.roster:
        affiliation, own = standing_of(occupant.role, members_only=members_only)
        if own == role:
            address = _address_of(occupant.user, muc)
            listed.append(
                xml_element("item", affiliation=affiliation, role=role, nick=occupant.nick, jid=address)
            )
    return listed


def _at_most(people: Iterable[RoomMember], most: int) -> list[RoomMember]:
    taken = list[RoomMember]()
    for person in people:
        taken.append(person)
        if len(taken) == most:
            break
    return taken


def _address_of(user: NativeId, muc: Muc) -> str:
    return jid.address_of(user, muc.network, jid.domain_of(muc.room))
