"""One room as the people of each network use it: what they do there, and what they see of it.

A side acts in its own protocol and tells what its client was shown as lines of text, such as
``edit of "helo": hello``. Ids and addresses, which differ from run to run, are not in them.
"""

from __future__ import annotations

import re
import secrets
from typing import Any, Protocol
from urllib.parse import quote
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape

from peers.ngircd import IrcUser
from peers.prosody import XmppUser
from peers.synapse import MatrixUser
from peers.waiting import until

#: A picture of one pixel.
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d4944415478da63fccfc0f01f0005"
    "0101ff8b8c1bd80000000049454e44ae426082"
)
_LINK = re.compile(r"https://\S+")


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

    async def see(self, text: str) -> None:
        async def seen() -> bool:
            return any(text in line for line in await self.lines())

        await until(f"{self.name} sees {text!r}", seen)

    async def lines(self) -> list[str]:
        events = await self.user.history(self.room)
        names = {event["event_id"]: event["content"].get("body", "") for event in events}
        return [line for event in events if (line := _line_of_event(event, names))]


def _line_of_event(event: dict[str, Any], names: dict[str, str]) -> str:
    content, type_ = event["content"], event["type"]
    relation = content.get("m.relates_to") or {}
    target = names.get(relation.get("event_id", ""), "")
    if type_ == "m.room.message" and not content:
        return "removed"
    if type_ == "m.reaction":
        return f'reaction {relation.get("key")} to "{target}"' if content else ""
    if type_ == "m.room.redaction":
        return "removal"
    if type_ == "m.room.topic":
        return f"topic: {content.get('topic', '')}"
    if type_ == "m.poll.start":
        return f"poll: {content['m.poll']['question']['m.text'][0]['body']}"
    if type_ != "m.room.message":
        return ""
    body, msgtype = content.get("body", ""), content.get("msgtype")
    if relation.get("rel_type") == "m.replace":
        return f'edit of "{target}": {content["m.new_content"]["body"]}'
    if "m.in_reply_to" in relation:
        answered = names.get(relation["m.in_reply_to"]["event_id"], "")
        return f'reply to "{answered}": {body}'
    if msgtype in {"m.image", "m.file"}:
        return f"{msgtype[2:]} {content.get('filename', body)}"
    if msgtype == "m.location":
        return f"location {body}"
    words = {"m.emote": "emote: ", "m.notice": "notice: "}.get(msgtype or "", "")
    bold = "<strong>" in content.get("formatted_body", "")
    return _LINK.sub("LINK", f"{words}{'bold: ' if bold else ''}{body}")


_NS = {
    "c": "jabber:client",
    "correct": "urn:xmpp:message-correct:0",
    "reactions": "urn:xmpp:reactions:0",
    "reply": "urn:xmpp:reply:0",
    "retract": "urn:xmpp:message-retract:1",
    "moderate": "urn:xmpp:message-moderate:1",
    "sid": "urn:xmpp:sid:0",
    "fallback": "urn:xmpp:fallback:0",
    "file": "urn:xmpp:file:metadata:0",
}


class XmppSide:
    """A person with an XMPP client."""

    def __init__(self, name: str, user: XmppUser, room: str) -> None:
        self.name = name
        self.user = user
        self.room = room
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
                if text in (message.findtext("c:body", "", _NS)):
                    one = message.find("sid:stanza-id", _NS)
                    return one.get("id", "") if one is not None else ""
            return ""

        return str(await self.user.until(f"the message {text!r}", found))

    async def say(self, text: str) -> None:
        self._send(text)

    async def emote(self, text: str) -> None:
        self._send(f"/me {text}")

    async def say_bold(self, text: str) -> None:
        self._send(f"*{text}*")

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

    async def see(self, text: str) -> None:
        await self.user.until(text, lambda: any(text in line for line in self._lines()))

    async def lines(self) -> list[str]:
        return self._lines()

    def _lines(self) -> list[str]:
        messages = [
            e
            for e in self.user.stanzas
            if e.tag.endswith("message") and e.get("from", "").partition("/")[0] == self.room
        ]
        names: dict[str, str] = {}
        for message in messages:
            body, sid = message.findtext("c:body", "", _NS), message.find("sid:stanza-id", _NS)
            names.setdefault(message.get("id", ""), body)
            if sid is not None:
                names.setdefault(sid.get("id", ""), body)
        return [line for message in messages if (line := _line_of_stanza(message, names))]


def _line_of_stanza(message: Element, names: dict[str, str]) -> str:
    def named(path: str) -> str | None:
        found = message.find(path, _NS)
        return None if found is None else names.get(found.get("id", ""), "?")

    if message.get("type") == "error":
        return "error"
    body = message.findtext("c:body", None, _NS)
    if (target := named("reactions:reactions")) is not None:
        keys = [one.text or "" for one in message.findall("reactions:reactions/reactions:reaction", _NS)]
        return f'reactions to "{target}": {" ".join(keys) or "none"}'
    if (target := named("retract:retract")) is not None:
        return f'removal of "{target}"'
    if (target := named("correct:replace")) is not None:
        return f'edit of "{target}": {body}'
    if body is None:
        topic = message.findtext("c:subject", None, _NS)
        return "" if topic is None else f"topic: {topic}"
    text = _LINK.sub("LINK", _without_fallback(message, body))
    if (name := message.findtext(".//file:name", None, _NS)) is not None:
        return f"file {name}: {text}"
    if (target := named("reply:reply")) is not None:
        return f'reply to "{target}": {text}'
    if text.startswith("/me "):
        return f"emote: {text.removeprefix('/me ')}"
    bold = re.fullmatch(r"\*([^*\n]+)\*", text)
    return f"bold: {bold[1]}" if bold else text


class IrcSide:
    """A person with an IRC client."""

    def __init__(self, name: str, user: IrcUser, channel: str) -> None:
        self.name = name
        self.user = user
        self.channel = channel
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

    async def see(self, text: str) -> None:
        await self.user.until(text, lambda: any(text in line for line in self._lines()))

    async def lines(self) -> list[str]:
        return self._lines()

    def _lines(self) -> list[str]:
        found: list[str] = []
        own = list(self._own)
        for number, line in enumerate(self.user.lines):
            while own and own[0][0] <= number:
                found.append(own.pop(0)[1])
            if shown := self._line(line):
                found.append(shown)
        return [*found, *(text for _, text in own)]

    def _line(self, line: str) -> str:
        source, _, rest = line.partition(" ")
        command, _, rest = rest.partition(" ")
        target, _, text = rest.partition(" :")
        if target != self.channel or command not in {"PRIVMSG", "NOTICE", "TOPIC"}:
            return ""
        if command == "TOPIC":
            return "" if source.startswith(f":{self.user.nick}!") else f"topic: {text}"
        text = re.sub(r"^<([^>]*)> ", "", _LINK.sub("LINK", text.replace("\x0f", "")))
        if action := re.fullmatch(r"\x01ACTION (.*)\x01", text):
            return f"emote: {action[1]}"
        text = re.sub(r"\x02([^\x02]*)\x02?", r"bold: \1", text)
        return f"notice: {text}" if command == "NOTICE" else text


def _without_fallback(message: Element, body: str) -> str:
    """A body without what it repeats for clients that do not know replies (XEP-0428)."""
    for fallback in message.findall("fallback:fallback", _NS):
        part = fallback.find("fallback:body", _NS)
        if fallback.get("for") == _NS["reply"] and part is not None:
            start, end = int(part.get("start", "0")), int(part.get("end", str(len(body))))
            return body[:start] + body[end:]
    return body
