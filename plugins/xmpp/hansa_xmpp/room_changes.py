"""What XMPP people change in a room by an IQ or a form: kicks, bans, ranks, voice, the configuration. The
room's authority, or the core where there is none, decides by the rank of who asks.
"""

from __future__ import annotations

from collections.abc import Sequence

from hansa import Content, Member, NativeId, NetworkContext, Role, RoomView, Standing

from hansa_xmpp.proto import errors, iq
from hansa_xmpp.proto.commands import RoomChanges
from hansa_xmpp.proto.errors import StanzaRefusal
from hansa_xmpp.service import HostedRoom, MucService
from hansa_xmpp.submissions import ItemSubmitter, make_submission, with_policy_texts


class RoomChangeRequests:
    """Submits the changes of one stanza together, and answers it."""

    def __init__(
        self,
        ctx: NetworkContext,
        service: MucService,
        submitter: ItemSubmitter,
    ) -> None:
        self._ctx = ctx
        self._service = service
        self._submitter = submitter

    async def submit(self, native: str, room: HostedRoom, changes: RoomChanges) -> None:
        """Submits in order. If one is refused, the others that are not stay as they are, and the error says
        which it was; whose rank was to change is shown to the sender as they are. After a refusal, later
        changes of the same person are refused too: a ban that is not lifted leaves no rank behind.
        """
        refused, answers = list[tuple[Content, StanzaRefusal]](), len(changes.contents)
        left = list(changes.contents)
        while left:
            now, left = _split_by_person(left)
            items = [
                with_policy_texts(
                    self._ctx, make_submission(self._ctx, native, changes.user, content), changes.stanza
                )
                for content in now
            ]
            whys = await self._submitter.submit_items(items)
            refused += [(c, why) for c, why in zip(now, whys, strict=True) if why is not None]
            stopped = {_person_of(c): why for c, why in refused}
            stopped.pop(None, None)
            refused += [(c, stopped[user]) for c in left if (user := _person_of(c)) in stopped]
            left = [c for c in left if _person_of(c) not in stopped]
        if not refused:
            if changes.stanza.kind == "iq":
                self._service.send_stanzas(iq.result(changes.stanza).stanzas)
            return
        content, why = refused[0]
        view = self._service.view(native)
        condition, text = _by_rank(content, why, changes.user, view)
        if answers > 1:
            user = _person_of(content)
            about = f" ({view.name_of(user)})" if user is not None else ""
            text = f"{len(refused)} of {answers} changes were refused, first{about}: {text}"
        self._ctx.count("xmpp_refused", why=condition.name)
        self._service.send_stanzas(errors.error_reply(changes.stanza, condition, text))
        people = dict.fromkeys(user for c, _ in refused if (user := _person_of(c)) is not None)
        self._service.send_stanzas(room.muc.present(people, changes.stanza.sender.full))


def _split_by_person(contents: Sequence[Content]) -> tuple[list[Content], list[Content]]:
    """Contents of which no two concern the same person, and the rest, which waits for their answers. The
    order of what a person is given and of what they do with it is kept.
    """
    people = set[NativeId]()
    for at, content in enumerate(contents):
        user = _person_of(content)
        if user in people:
            return list(contents[:at]), list(contents[at:])
        if user is not None:
            people.add(user)
    return list(contents), []


def _person_of(content: Content) -> NativeId | None:
    return content.user if isinstance(content, Member | Standing) else None


def _by_rank(content: Content, why: StanzaRefusal, actor: NativeId, view: RoomView) -> StanzaRefusal:
    """XEP-0045 section 8.2: a moderator who acts on a person of no lower rank gets ``not-allowed``."""
    condition, text = why
    user, own = _person_of(content), view.person(actor)
    if condition is errors.POLICY_VIOLATION and isinstance(content, Member):
        return errors.FORBIDDEN, text  # a policy judges the act here, not the form of the words
    if condition is not errors.FORBIDDEN or user in {None, actor} or own is None:
        return why
    target = view.person(user)
    if target is not None and own.role >= Role.MODERATOR and target.role >= own.role:
        return errors.NOT_ALLOWED, text
    return why
