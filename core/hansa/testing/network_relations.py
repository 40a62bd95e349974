"""Tests of ``NetworkSuite`` about replies, files, long edits and messages that the network does not know."""

from __future__ import annotations

from functools import partial

import pytest

from hansa.model.content import Attachment, Content, Edit, Message, Reaction, Retraction
from hansa.model.features import Level
from hansa.model.ref import NativeId
from hansa.testing.network_bench import NetworkBench
from hansa.testing.stage import Stage

_QUESTION, _ANSWER = "when do we sail", "at high water"
#: Words of a long edit, and of a name that no text has by chance.
_LONG_WORDS, _FILE = 400, "sail-plan-4711.pdf"


class RelationChecks(NetworkBench):
    """The tests of what concerns an earlier message, and of files."""

    async def test_a_reply_is_readable(self) -> None:
        """A reply is shown whole, and what it answers can be told: by its relation, or by a quote."""
        async with self.stage() as stage:
            _skip_without_messages(stage)
            asked = await self._said_by_zoe(stage, Message(text=_QUESTION))
            before = len(self.shown(stage))
            await self._says(stage, Message(text=_ANSWER, reply_to=asked))
            await stage.until("a reply was shown", lambda: len(self.shown(stage)) > before)
            said = [c for c in self.shown(stage)[before:] if isinstance(c, Message)]
            text = "\n".join(c.text for c in said)
            assert _ANSWER in text, (
                f"the words of a reply were lost: {text!r} was shown. A text may begin with a quote of what "
                "it answers, and goes on after it"
            )
            assert _QUESTION in text or any(c.reply_to for c in said), (
                f"{text!r} was shown, and not what it answers: without ``replies`` in its features a "
                "network gets a quote in the text, and shows it; with it, it shows ``reply_to``"
            )

    async def test_what_concerns_an_unknown_message_is_no_error(self) -> None:
        """A reply, an edit, a reaction and a retraction of a message without a native id pass: ``send``
        returns, and the next message is shown.
        """
        async with self.stage() as stage:
            _skip_without_messages(stage)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(stage.app.contexts["tested"], "native_ids", _without_ids)
                known = await self._said_by_zoe(stage, Message(text="said long ago"))
                for content in (
                    Message(text="a late answer", reply_to=known),
                    Edit(target=known, message=Message(text="said longer ago")),
                    Reaction(target=known, key="👍"),
                    Retraction(target=known),
                ):
                    await stage.other.do("other", "zoe@elsewhere", content)
                await stage.other.do("other", "zoe@elsewhere", Message(text="fence"))
                try:
                    await stage.until(
                        "a message was shown after what concerns an unknown one",
                        partial(self._is_shown, stage, Message(text="fence")),
                    )
                except AssertionError:
                    failed = next((f"send raised {error!r}" for _, error in stage.failures), "nothing came")
                    raise AssertionError(
                        f"{failed}: ctx.native_ids returns nothing for a message that the network never "
                        "got. Send such content in words, or not at all"
                    ) from None
            wrong = [error for _, error in stage.failures]
            assert not wrong, (
                f"send raised {wrong[0]!r} for what concerns a message that the network never got: send it "
                "in words, or not at all"
            )

    async def test_a_file_is_shown(self) -> None:
        """A message with a file is shown with the file, or with its name; and so is a file without words."""
        async with self.stage() as stage:
            _skip_without_messages(stage)
            file = Attachment(
                name=_FILE, media_type="application/pdf", size=9, source=NativeId("other", "f1")
            )
            for text in ("the plan", ""):
                before = len(self.shown(stage))
                await self._says(stage, Message(text=text, attachments=(file,)))
                await stage.until("a file was shown", lambda: len(self.shown(stage)) > before)  # noqa: B023
                said = [c for c in self.shown(stage)[before:] if isinstance(c, Message)]
                told = "\n".join([c.text for c in said] + [a.name for c in said for a in c.attachments])
                assert all(part in told for part in (_FILE, text)), (
                    f"a message with the text {text!r} and the file {_FILE} was shown as {told!r}: without "
                    "``attachments`` in its features a network gets names and links in the text; with it, "
                    "it shows ``attachments``"
                )

    async def test_a_long_edit_is_not_cut_silently(self) -> None:
        """An edit that is too long is shown whole, or says how much is missing."""
        async with self.stage() as stage:
            if stage.features.level(Edit.kind) < Level.FALLBACK:
                pytest.skip("this network shows no edits")
            first = await self._said_by_zoe(stage, Message(text="short"))
            words = [f"word{number:04d}" for number in range(_LONG_WORDS)]
            before = len(self.shown(stage))
            await self._says(stage, Edit(target=first, message=Message(text=" ".join(words))))
            await stage.until("a long edit was shown", lambda: len(self.shown(stage)) > before)
            text = " ".join(_text_of(c) for c in self.shown(stage)[before:])
            lost = [word for word in words if word not in text]
            assert not lost or "not shown here" in text or "://" in text, (
                f"{len(lost)} of {len(words)} words of an edit were lost, from {lost[0]} on: declare "
                "max_text, and the core says how much is missing; or split it"
            )

    async def _said_by_zoe(self, stage: Stage, content: Content) -> str:
        """Returns the core's id of a new event, which was shown."""
        before = len(self.shown(stage))
        await self._says(stage, content)
        await stage.until(f"{content} was shown", lambda: len(self.shown(stage)) > before)
        return next(delivery.event.id for delivery, _ in reversed(stage.sends))


async def _without_ids(_event: object) -> list[str]:
    return []


def _text_of(content: Content) -> str:
    message = content.message if isinstance(content, Edit) else content
    return message.text if isinstance(message, Message) else ""


def _skip_without_messages(stage: Stage) -> None:
    if stage.features.level(Message.kind) < Level.FALLBACK:
        pytest.skip("this network shows no messages")
