"""Lines of text that say what a client was shown: the same words for the same thing in every protocol."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from xml.etree.ElementTree import Element

LINK = re.compile(r"https://\S+")
#: Prefixes of namespaces.
XMPP_NAMES = {
    "c": "jabber:client",
    "correct": "urn:xmpp:message-correct:0",
    "reactions": "urn:xmpp:reactions:0",
    "reply": "urn:xmpp:reply:0",
    "retract": "urn:xmpp:message-retract:1",
    "moderate": "urn:xmpp:message-moderate:1",
    "sid": "urn:xmpp:sid:0",
    "fallback": "urn:xmpp:fallback:0",
    "file": "urn:xmpp:file:metadata:0",
    "reference": "urn:xmpp:reference:0",
    "user": "http://jabber.org/protocol/muc#user",
}


def matrix_lines(events: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Lines of a room's timeline, oldest event first."""
    named, people, ranks = dict[str, str](), dict[str, str](), dict[str, int]()
    for event in events:
        content = event["content"]
        named[event["event_id"]] = content.get("body", "") or _question_of(content)
        if event["type"] == "m.room.member":
            yield from _line_of_member(event, people)
        elif event["type"] == "m.room.power_levels":
            users = content.get("users", {})
            for user in sorted(users.keys() | ranks.keys()):
                if users.get(user, 0) != ranks.get(user, 0):
                    yield f"rank of {_name(user, people)}: {users.get(user, 0)}"
            ranks = dict(users)
        else:
            yield _line_of_event(event, named)


def _name(user: str, people: Mapping[str, str]) -> str:
    return people.get(user) or user[1:].partition(":")[0]


def _question_of(content: Mapping[str, Any]) -> str:
    poll = content.get("m.poll") or {}
    return poll["question"]["m.text"][0]["body"] if poll else ""


def _line_of_member(event: dict[str, Any], people: dict[str, str]) -> Iterator[str]:
    content, user, sender = event["content"], event["state_key"], event["sender"]
    before = event.get("unsigned", {}).get("prev_content", {})
    was, becomes = before.get("membership", "leave"), content["membership"]
    name, old = content.get("displayname") or "", _name(user, people)
    if name and becomes in {"join", "invite"}:
        people[user] = name
    reason = f": {content['reason']}" if content.get("reason") else ""
    if becomes == "join":
        renamed = f"{old} is {people[user]} now" if old != _name(user, people) else ""
        yield renamed if was == "join" else f"{_name(user, people)} joins"
    elif becomes == "leave" and sender == user:
        yield f"{old} leaves"
    elif becomes == "leave" and was in {"ban", "leave"}:
        yield f"{old} is unbanned by {_name(sender, people)}" if was == "ban" else ""
    elif becomes == "leave":
        yield f"{old} is removed by {_name(sender, people)}{reason}"
    elif becomes == "ban":
        yield f"{old} is banned by {_name(sender, people)}{reason}"


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
    if type_ == "m.room.name":
        return f"name of the room: {content.get('name', '')}"
    if type_ == "m.poll.start":
        return f"poll: {_question_of(content)}"
    if type_ == "m.poll.response":
        return f'vote in "{target}": {" ".join(content["m.selections"])}'
    if type_ == "m.poll.end":
        return f'end of "{target}"'
    if type_ == "m.call.notify":
        return "call"
    if type_ != "m.room.message":
        return ""
    body, msgtype = content.get("body", ""), content.get("msgtype")
    if relation.get("rel_type") == "m.replace":
        return f'edit of "{target}": {content["m.new_content"]["body"]}'
    if relation.get("rel_type") == "m.thread":
        return f'in the thread of "{target}": {body}'
    if "m.in_reply_to" in relation:
        answered = names.get(relation["m.in_reply_to"]["event_id"], "")
        return f'reply to "{answered}": {body}'
    if msgtype in {"m.image", "m.file"}:
        return f"{msgtype[2:]} {content.get('filename', body)}"
    if msgtype == "m.location":
        return f"location {body}"
    if (content.get("m.mentions") or {}).get("user_ids"):
        body = f"mention of {len(content['m.mentions']['user_ids'])}: {body}"
    words = {"m.emote": "emote: ", "m.notice": "notice: "}.get(msgtype or "", "")
    html = content.get("formatted_body", "")
    style = "bold: " if "<strong>" in html else "code: " if "<code" in html else ""
    return LINK.sub("LINK", f"{words}{style}{body}")


def xmpp_lines(stanzas: Iterable[Element], room: str) -> Iterator[str]:
    """Lines of what a room sent, in order."""
    named = dict[str, str]()
    here = dict[str, tuple[str, str]]()
    renamed = set[str]()
    for stanza in stanzas:
        address, _, nick = stanza.get("from", "").partition("/")
        if address != room:
            continue
        if stanza.tag.endswith("presence"):
            if nick and stanza.get("type") != "error":
                yield _line_of_presence(stanza, nick, here, renamed)
            continue
        body, sid = stanza.findtext("c:body", "", XMPP_NAMES), stanza.find("sid:stanza-id", XMPP_NAMES)
        named.setdefault(stanza.get("id", ""), body)
        if sid is not None:
            named.setdefault(sid.get("id", ""), body)
        yield _line_of_stanza(stanza, named)


def _line_of_presence(
    presence: Element, nick: str, here: dict[str, tuple[str, str]], renamed: set[str]
) -> str:
    item = presence.find("user:x/user:item", XMPP_NAMES)
    codes = {one.get("code") for one in presence.findall("user:x/user:status", XMPP_NAMES)}
    if item is None:
        return ""
    if presence.get("type") is None:
        before, now = here.get(nick), (item.get("affiliation", ""), item.get("role", ""))
        here[nick] = now
        if nick in renamed:
            renamed.discard(nick)
            return ""
        if before is None:
            return f"{nick} joins"
        return f"rank of {nick}: {' '.join(now)}" if before != now else ""
    if "303" in codes:
        renamed.add(item.get("nick", ""))
        here[item.get("nick", "")] = here.pop(nick, ("", ""))
        return f"{nick} is {item.get('nick')} now"
    here.pop(nick, None)
    actor, reason = item.find("user:actor", XMPP_NAMES), item.findtext("user:reason", "", XMPP_NAMES)
    by = f" by {actor.get('nick')}" if actor is not None else ""
    because = f": {reason}" if reason else ""
    if "301" in codes:
        return f"{nick} is banned{by}{because}"
    if codes & {"307", "321", "322"}:
        return f"{nick} is removed{by}{because}"
    return f"{nick} leaves"


def _line_of_stanza(message: Element, names: dict[str, str]) -> str:
    def named(path: str) -> str | None:
        found = message.find(path, XMPP_NAMES)
        return None if found is None else names.get(found.get("id", ""), "?")

    if message.get("type") == "error":
        return "error"
    body = message.findtext("c:body", None, XMPP_NAMES)
    if (target := named("reactions:reactions")) is not None:
        keys = [
            one.text or "" for one in message.findall("reactions:reactions/reactions:reaction", XMPP_NAMES)
        ]
        return f'reactions to "{target}": {" ".join(keys) or "none"}'
    if (target := named("retract:retract")) is not None:
        return f'removal of "{target}"'
    if (target := named("correct:replace")) is not None:
        return f'edit of "{target}": {body}'
    if body is None:
        topic = message.findtext("c:subject", None, XMPP_NAMES)
        return "" if topic is None else f"topic: {topic}"
    text = LINK.sub("LINK", _without_fallback(message, body))
    if (name := message.findtext(".//file:name", None, XMPP_NAMES)) is not None:
        return f"file {name}: {text}"
    if (target := named("reply:reply")) is not None:
        return f'reply to "{target}": {text}'
    if mentions := message.findall("reference:reference", XMPP_NAMES):
        return f"mention of {len(mentions)}: {text}"
    if (thread := message.findtext("c:thread", None, XMPP_NAMES)) is not None:
        return f'in the thread of "{names.get(thread, thread)}": {text}'
    if text.startswith("/me "):
        return f"emote: {text.removeprefix('/me ')}"
    if code := re.fullmatch(r"```[^\n]*\n(.*?)\n```", text, re.DOTALL):
        return f"code: {code[1]}"
    bold = re.fullmatch(r"\*([^*\n]+)\*", text)
    return f"bold: {bold[1]}" if bold else text


def _without_fallback(message: Element, body: str) -> str:
    """A body without what it repeats for clients that do not know replies (XEP-0428)."""
    for fallback in message.findall("fallback:fallback", XMPP_NAMES):
        part = fallback.find("fallback:body", XMPP_NAMES)
        if fallback.get("for") == XMPP_NAMES["reply"] and part is not None:
            start, end = int(part.get("start", "0")), int(part.get("end", str(len(body))))
            return body[:start] + body[end:]
    return body


class IrcLines:
    """Lines of what a client in a channel gets. What the person of ``nick`` does is left out."""

    def __init__(self, nick: str, channel: str) -> None:
        self._nick = nick
        self._channel = channel

    def line(self, line: str) -> str:
        """Returns what a line shows, empty if nothing."""
        source, _, rest = line.partition(" ")
        command, _, rest = rest.partition(" ")
        who = source[1:].partition("!")[0]
        target, _, text = rest.partition(" :")
        if who == self._nick:
            if command == "NICK":
                self._nick = rest.lstrip(":")
            return ""
        match command:
            case "NICK":
                return f"{who} is {rest.lstrip(':')} now"
            case "QUIT":
                return f"{who} leaves"
            case "JOIN":
                return f"{who} joins" if rest.lstrip(":") == self._channel else ""
            case "PART":
                because = f": {text}" if text else ""
                return f"{who} leaves{because}" if target == self._channel else ""
            case "KICK":
                return f"{target.partition(' ')[2]} is removed: {text}"
            case "MODE":
                return f"mode {rest.partition(' ')[2]}" if rest.startswith(f"{self._channel} ") else ""
            case "TOPIC" if target == self._channel:
                return f"topic: {text}"
            case "PRIVMSG" | "NOTICE" if target == self._channel:
                return _said_on_irc(text, notice=command == "NOTICE")
            case _:
                return ""


def _said_on_irc(text: str, *, notice: bool) -> str:
    text = re.sub(r"^<([^>]*)> ", "", LINK.sub("LINK", text.replace("\x0f", "")))
    if action := re.fullmatch(r"\x01ACTION (.*)\x01", text):
        return f"emote: {action[1]}"
    text = re.sub(r"\x02([^\x02]*)\x02?", r"bold: \1", text)
    return f"notice: {text}" if notice else text
