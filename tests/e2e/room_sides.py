"""One room as the people of each network use it: what they do there, and what they see of it.

A side acts in its own protocol and tells what its client was shown as lines of text, such as
``edit of "helo": hello``. Ids and addresses, which differ from run to run, are not in them.
"""

from __future__ import annotations

import secrets
from typing import Any, Protocol
from urllib.parse import quote
from xml.sax.saxutils import escape

from e2e.room_lines import XMPP_NAMES, IrcLines, matrix_lines, xmpp_lines
from peers.ngircd import IrcUser
from peers.prosody import XmppUser
from peers.synapse import MatrixUser
from peers.waiting import until

#: A picture of one pixel.
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d4944415478da63fccfc0f01f0005"
    "0101ff8b8c1bd80000000049454e44ae426082"
)


class Side(Protocol):
    """The people of one network. Messages are named by their text."""

    name: str

    async def see(self, text: str) -> None:
        """Wait until a line with this text was shown."""
        ...

    async def lines(self) -> list[str]:
        """Everything that was shown, in order."""
        ...

    async def say(self, text: str) -> None:
        """Say a line."""
        ...


class MatrixSide:
    """A person with a Matrix client, on whatever server."""

    def __init__(self, name: str, user: MatrixUser, room: str) -> None:
        self.name = name
        self.user = user
        self.room = room

    async def _send(self, type_: str, content: dict[str, Any]) -> str:
        path = f"/rooms/{quote(self.room, safe='')}/send/{type_}/{secrets.token_hex(6)}"
        return str((await self.user.call("PUT", path, content))["event_id"])

    async def _find(self, text: str) -> str:
        """The id of the message with this text."""

        async def found() -> str:
            for event in await self.user.history(self.room):
                if event["type"] == "m.room.message" and text in event["content"].get("body", ""):
                    return str(event["event_id"])
            return ""

        return str(await until(f"{self.name} finds {text!r}", found))

    async def say(self, text: str) -> None:
        await self._send("m.room.message", {"msgtype": "m.text", "body": text})

    async def emote(self, text: str) -> None:
        await self._send("m.room.message", {"msgtype": "m.emote", "body": text})

    async def say_bold(self, text: str) -> None:
        html = {"format": "org.matrix.custom.html", "formatted_body": f"<strong>{text}</strong>"}
        await self._send("m.room.message", {"msgtype": "m.text", "body": text, **html})

    async def mention(self, name: str, text: str) -> None:
        user = await self._id_of(name)
        html = f"<a href='https://matrix.to/#/{quote(user)}'>{name}</a>: {text}"
        formatted = {"format": "org.matrix.custom.html", "formatted_body": html}
        mentions = {"m.mentions": {"user_ids": [user]}}
        content = {"msgtype": "m.text", "body": f"{name}: {text}", **formatted, **mentions}
        await self._send("m.room.message", content)

    async def reply(self, text: str, target: str) -> None:
        relation = {"m.in_reply_to": {"event_id": await self._find(target)}}
        await self._send("m.room.message", {"msgtype": "m.text", "body": text, "m.relates_to": relation})

    async def edit(self, target: str, text: str) -> None:
        new = {"msgtype": "m.text", "body": text}
        relation = {"rel_type": "m.replace", "event_id": await self._find(target)}
        await self._send(
            "m.room.message", {**new, "body": f"* {text}", "m.new_content": new, "m.relates_to": relation}
        )

    async def react(self, target: str, key: str) -> None:
        relation = {"rel_type": "m.annotation", "event_id": await self._find(target), "key": key}
        await self._send("m.reaction", {"m.relates_to": relation})

    async def unreact(self, target: str, key: str) -> None:
        event_id = await self._find(target)
        events = await self.user.history(self.room)
        mine = next(
            event["event_id"]
            for event in events
            if event["type"] == "m.reaction"
            and event["sender"] == self.user.id
            and event["content"].get("m.relates_to", {}).get("event_id") == event_id
            and event["content"]["m.relates_to"]["key"] == key
        )
        await self._redact(mine)

    async def retract(self, target: str) -> None:
        await self._redact(await self._find(target))

    async def _redact(self, event_id: str) -> None:
        path = f"/rooms/{quote(self.room, safe='')}/redact/{quote(event_id, safe='')}/{secrets.token_hex(6)}"
        await self.user.call("PUT", path, {})

    async def send_file(self, name: str) -> None:
        url = await self.user.upload(PIXEL, "image/png", name)
        info = {"mimetype": "image/png", "size": len(PIXEL), "w": 1, "h": 1}
        await self._send("m.room.message", {"msgtype": "m.image", "body": name, "url": url, "info": info})

    async def send_location(self, text: str) -> None:
        content = {"msgtype": "m.location", "body": text, "geo_uri": "geo:53.5,9.9"}
        await self._send("m.room.message", content)

    async def start_poll(self, question: str) -> None:
        answers = [{"m.id": key, "m.text": [{"body": key}]} for key in ("tea", "coffee")]
        poll = {"question": {"m.text": [{"body": question}]}, "answers": answers, "max_selections": 1}
        await self._send("m.poll.start", {"m.poll": poll, "m.text": [{"body": question}]})

    async def set_topic(self, text: str) -> None:
        await self.user.set_state(self.room, "m.room.topic", {"topic": text})

    async def say_code(self, text: str) -> None:
        html = {
            "format": "org.matrix.custom.html",
            "formatted_body": f"<pre><code>{escape(text)}\n</code></pre>",
        }
        await self._send("m.room.message", {"msgtype": "m.text", "body": text, **html})

    async def answer_in_thread(self, text: str, target: str) -> None:
        relation = {"rel_type": "m.thread", "event_id": await self._find(target)}
        await self._send("m.room.message", {"msgtype": "m.text", "body": text, "m.relates_to": relation})

    async def vote(self, question: str, answer: str) -> None:
        relation = {"rel_type": "m.reference", "event_id": await self._find_poll(question)}
        await self._send("m.poll.response", {"m.selections": [answer], "m.relates_to": relation})

    async def end_poll(self, question: str) -> None:
        relation = {"rel_type": "m.reference", "event_id": await self._find_poll(question)}
        text = [{"body": f"{question} tea"}]
        await self._send("m.poll.end", {"m.text": text, "m.relates_to": relation})

    async def _find_poll(self, question: str) -> str:
        events = await self.user.history(self.room)
        return next(
            str(event["event_id"])
            for event in events
            if event["type"] == "m.poll.start" and question in str(event["content"])
        )

    async def call(self) -> None:
        content = {"application": "m.call", "call_id": "", "notify_type": "ring", "m.mentions": {}}
        await self._send("m.call.notify", content)

    async def name_room(self, text: str) -> None:
        await self.user.set_state(self.room, "m.room.name", {"name": text})

    async def rename(self, name: str) -> None:
        path = f"/profile/{quote(self.user.id, safe='')}/displayname"
        await self.user.call("PUT", path, {"displayname": name})

        async def renamed() -> bool:
            return (await self.user.members(self.room))[self.user.id] == name

        await until(f"{self.name} is {name}", renamed)

    async def leave(self) -> None:
        await self.user.leave(self.room)

    async def join(self) -> None:
        await self.user.join(self.room)

    async def _id_of(self, name: str) -> str:
        return next(user for user, known in (await self.user.members(self.room)).items() if known == name)

    async def promote(self, name: str, *, to: int = 50) -> None:
        levels = (await self.user.state(self.room))["m.room.power_levels", ""]["content"]
        users = {**levels.get("users", {}), await self._id_of(name): to}
        await self.user.set_state(self.room, "m.room.power_levels", {**levels, "users": users})

    async def demote(self, name: str) -> None:
        await self.promote(name, to=0)

    async def kick(self, name: str) -> None:
        await self.user.kick(self.room, await self._id_of(name), "weary")

    async def see(self, text: str) -> None:
        async def seen() -> bool:
            return any(text in line for line in await self.lines())

        await until(f"{self.name} sees {text!r}", seen)

    async def lines(self) -> list[str]:
        return [line for line in matrix_lines(await self.user.history(self.room)) if line]


class XmppSide:
    """A person with an XMPP client."""

    def __init__(self, name: str, user: XmppUser, room: str, nick: str) -> None:
        self.name = name
        self.user = user
        self.room = room
        self.nick = nick
        #: The ids under which own messages were sent, by text.
        self._sent: dict[str, str] = {}

    def _send(self, body: str, more: str = "") -> str:
        id_ = f"m{secrets.token_hex(6)}"
        words = f"<body>{escape(body)}</body>" if body else ""
        self.user.raw(f"<message to='{self.room}' type='groupchat' id='{id_}'>{words}{more}</message>")
        if body:
            self._sent[body] = id_
        return id_

    async def _find(self, text: str) -> str:
        """The stanza-id that the room gave the message with this text."""

        def found() -> str:
            for message in self.user.messages(self.room):
                if text in (message.findtext("c:body", "", XMPP_NAMES)):
                    one = message.find("sid:stanza-id", XMPP_NAMES)
                    return one.get("id", "") if one is not None else ""
            return ""

        return str(await self.user.until(f"the message {text!r}", found))

    async def say(self, text: str) -> None:
        self._send(text)

    async def emote(self, text: str) -> None:
        self._send(f"/me {text}")

    async def say_bold(self, text: str) -> None:
        self._send(f"*{text}*")

    async def mention(self, name: str, text: str) -> None:
        self._send(f"{name}: {text}")

    async def reply(self, text: str, target: str) -> None:
        id_ = await self._find(target)
        self._send(text, f"<reply xmlns='urn:xmpp:reply:0' id='{id_}'/>")

    async def edit(self, target: str, text: str) -> None:
        self._send(text, f"<replace xmlns='urn:xmpp:message-correct:0' id='{self._sent[target]}'/>")

    async def react(self, target: str, key: str) -> None:
        inner = f"<reaction>{key}</reaction>" if key else ""
        id_ = await self._find(target)
        self._send("", f"<reactions xmlns='urn:xmpp:reactions:0' id='{id_}'>{inner}</reactions>")

    async def unreact(self, target: str, key: str) -> None:
        del key
        await self.react(target, "")

    async def retract(self, target: str) -> None:
        id_ = await self._find(target)
        self._send("", f"<retract xmlns='urn:xmpp:message-retract:1' id='{id_}'/>")

    async def set_topic(self, text: str) -> None:
        self.user.set_subject(self.room, escape(text))

    async def say_code(self, text: str) -> None:
        self._send(f"```\n{text}\n```")

    async def answer_in_thread(self, text: str, target: str) -> None:
        self._send(text, f"<thread>{await self._find(target)}</thread>")

    async def rename(self, name: str) -> None:
        self.nick = name
        self.user.raw(f"<presence to='{self.room}/{name}'/>")

    async def leave(self) -> None:
        self.user.leave(self.room, self.nick)

    async def join(self) -> None:
        await self.user.join(self.room, self.nick)

    def _administer(self, item: str) -> None:
        query = f"<query xmlns='http://jabber.org/protocol/muc#admin'><item {item}</query>"
        self.user.raw(f"<iq to='{self.room}' type='set' id='a{secrets.token_hex(6)}'>{query}</iq>")

    async def promote(self, name: str) -> None:
        self._administer(f"nick='{name}' role='moderator'/>")

    async def demote(self, name: str) -> None:
        self._administer(f"nick='{name}' affiliation='none'/>")

    async def kick(self, name: str) -> None:
        self._administer(f"nick='{name}' role='none'><reason>weary</reason></item>")

    async def see(self, text: str) -> None:
        await self.user.until(text, lambda: any(text in line for line in self._lines()))

    async def lines(self) -> list[str]:
        return self._lines()

    def _lines(self) -> list[str]:
        return [line for line in xmpp_lines(self.user.stanzas, self.room) if line]


class IrcSide:
    """A person with an IRC client."""

    def __init__(self, name: str, user: IrcUser, channel: str) -> None:
        self.name = name
        self.user = user
        self.channel = channel
        self._first_nick = user.nick
        #: Where in what arrived an own line was sent: a server does not send it back.
        self._own: list[tuple[int, str]] = []

    async def say(self, text: str) -> None:
        self._own.append((len(self.user.lines), text))
        self.user.send(f"PRIVMSG {self.channel} :{text}")

    async def emote(self, text: str) -> None:
        self.user.send(f"PRIVMSG {self.channel} :\1ACTION {text}\1")

    async def say_bold(self, text: str) -> None:
        self.user.send(f"PRIVMSG {self.channel} :\2{text}\2")

    async def set_topic(self, text: str) -> None:
        self.user.send(f"TOPIC {self.channel} :{text}")

    async def rename(self, name: str) -> None:
        self.user.send(f"NICK {name}")

    async def leave(self) -> None:
        self.user.send(f"PART {self.channel}")

    async def join(self) -> None:
        await self.user.join(self.channel)

    async def promote(self, name: str) -> None:
        self.user.send(f"MODE {self.channel} +o {name}")

    async def demote(self, name: str) -> None:
        self.user.send(f"MODE {self.channel} -o {name}")

    async def kick(self, name: str) -> None:
        self.user.send(f"KICK {self.channel} {name} :weary")

    async def see(self, text: str) -> None:
        await self.user.until(text, lambda: any(text in line for line in self._lines()))

    async def lines(self) -> list[str]:
        return self._lines()

    def _lines(self) -> list[str]:
        found: list[str] = []
        own, shown = list(self._own), IrcLines(self._first_nick, self.channel)
        for number, line in enumerate(self.user.lines):
            while own and own[0][0] <= number:
                found.append(own.pop(0)[1])
            if text := shown.line(line):
                found.append(text)
        return [*found, *(text for _, text in own)]
