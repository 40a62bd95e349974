"""The configuration form of a room (``muc#owner``): every field says what the room is, and a field that
cannot be changed is refused by its name.

SPEC: XEP-0045 section 10.2 (configuration), section 10.9 (destruction) and section 15.5.3 (the fields);
XEP-0004 section 3.3 (field types).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from hansa import Content, JoinRule, Membership, Name, Role, RoomView

from hansa_xmpp.proto import errors, render
from hansa_xmpp.proto.commands import RoomChanges, SendStanzas
from hansa_xmpp.proto.errors import Condition
from hansa_xmpp.proto.muc import Muc
from hansa_xmpp.proto.render import xml_element, xml_text
from hansa_xmpp.proto.stanza import NS_DATA_FORM, NS_MUC_OWNER, Stanza

#: The longest name of a room, in UTF-8 bytes, and the fields of a form.
MAX_NAME, MAX_FIELDS = 1024, 100

FORM_TYPE = "http://jabber.org/protocol/muc#roomconfig"
_NAME, _MEMBERS_ONLY = "muc#roomconfig_roomname", "muc#roomconfig_membersonly"
_FIELD, _VALUE = f"{{{NS_DATA_FORM}}}field", f"{{{NS_DATA_FORM}}}value"
_BOOLEANS = {"true": "1", "false": "0", "1": "1", "0": "0"}


@dataclass(frozen=True, slots=True)
class _Field:
    var: str
    type: str
    label: str
    value: str

    def to_xml(self) -> str:
        inner = xml_element("value", "", xml_text(self.value))
        if self.type == "list-single":
            inner += xml_element("option", "", xml_element("value", "", xml_text(self.value)))
        return xml_element("field", "", inner, var=self.var, type=self.type, label=self.label)

    def value_of(self, field: Element) -> str:
        """The value that a client sends, a boolean as a digit."""
        value = field.findtext(_VALUE) or ""
        return _BOOLEANS.get(value, value) if self.type == "boolean" else value


def handle_owner_query(
    stanza: Stanza, query: Element, muc: Muc, view: RoomView
) -> Sequence[SendStanzas | RoomChanges]:
    """Answers with the form, or returns the changes that a submitted one makes. All of it is checked before
    any happens; the room's authority decides whether the owner may.
    """
    actor = view.person(muc.user(stanza))
    if actor is None or actor.membership is not Membership.JOIN or actor.role is not Role.OWNER:
        return _refuse(stanza, errors.FORBIDDEN, "only an owner of the room may configure it")
    if stanza.type == "get":
        if len(query):
            return _refuse(stanza, errors.BAD_REQUEST, "the form is asked for by an empty query")
        return [_result(stanza, xml_element("query", NS_MUC_OWNER, _form(muc, view)))]
    form = query.find(f"{{{NS_DATA_FORM}}}x")
    if len(query) == 1 and query.find(f"{{{NS_MUC_OWNER}}}destroy") is not None:
        return _refuse(stanza, errors.NOT_IMPLEMENTED, "only the operator of this server removes a room")
    if form is None or len(query) != 1:
        return _refuse(stanza, errors.BAD_REQUEST, "the query has one form and nothing else")
    if form.get("type") == "cancel":
        return [_result(stanza)]
    if form.get("type") != "submit":
        return _refuse(stanza, errors.BAD_REQUEST, "the form has the type submit or cancel")
    sent = form.findall(_FIELD)
    if len(sent) > MAX_FIELDS:
        return _refuse(stanza, errors.POLICY_VIOLATION, f"the form has over {MAX_FIELDS} fields")
    fields, contents = {field.var: field for field in _fields(muc, view)}, list[Content]()
    for one in sent:
        var = one.get("var", "")
        if var == "FORM_TYPE":
            if (one.findtext(_VALUE) or "") != FORM_TYPE:
                return _refuse(stanza, errors.BAD_REQUEST, "the form is not one of a room's configuration")
            continue
        field = fields.get(var)
        if field is None:
            return _refuse(stanza, errors.NOT_ACCEPTABLE, f"{var[:100]} is not a field of this room")
        value = field.value_of(one)
        if value == field.value:
            continue
        if var == _NAME:
            if len(value.encode(errors="replace")) > MAX_NAME:
                return _refuse(stanza, errors.POLICY_VIOLATION, f"{var}: the name has over {MAX_NAME} bytes")
            contents.append(Name(text=value))
        elif var == _MEMBERS_ONLY and value in {"0", "1"}:
            contents.append(JoinRule(rule="invite" if value == "1" else "public"))
        else:
            return _refuse(stanza, errors.NOT_ACCEPTABLE, f"{var} cannot be changed to that here")
    return [RoomChanges(stanza, actor.user, tuple(contents))]


def _fields(muc: Muc, view: RoomView) -> list[_Field]:
    facts = view.facts
    public = facts.join_rule == "public"
    return [
        _Field(_NAME, "text-single", "Name", facts.name),
        _Field(_MEMBERS_ONLY, "boolean", "Only people who are invited may enter", _boolean(not public)),
        _Field("muc#roomconfig_publicroom", "boolean", "In the list of rooms (fixed)", _boolean(public)),
        _Field(
            "muc#roomconfig_moderatedroom",
            "boolean",
            "Only people with voice may speak (fixed)",
            _boolean(facts.moderated),
        ),
        _Field("muc#roomconfig_persistentroom", "boolean", "Stays when nobody is there (fixed)", "1"),
        _Field("muc#roomconfig_passwordprotectedroom", "boolean", "Needs a password (fixed)", "0"),
        _Field("muc#roomconfig_enablelogging", "boolean", "Keeps its history (fixed)", "1"),
        _Field("muc#roomconfig_whois", "list-single", "Addresses are shown to (fixed)", "anyone"),
        _Field(
            "muc#roomconfig_allowpm",
            "list-single",
            "Private messages are allowed to (fixed)",
            "participants" if muc.private_messages else "none",
        ),
    ]


def _boolean(value: bool) -> str:  # a value, not a flag
    return "1" if value else "0"


def _form(muc: Muc, view: RoomView) -> str:
    inner = xml_element("title", "", "Configuration of the room")
    inner += xml_element("field", "", xml_element("value", "", FORM_TYPE), var="FORM_TYPE", type="hidden")
    inner += "".join(field.to_xml() for field in _fields(muc, view))
    return xml_element("x", NS_DATA_FORM, inner, type="form")


def _result(stanza: Stanza, inner: str = "") -> SendStanzas:
    answer = render.stanza("iq", stanza.to.full, [stanza.sender.full], inner, type_="result", id_=stanza.id)
    return SendStanzas((answer,))


def _refuse(stanza: Stanza, condition: Condition, text: str) -> list[SendStanzas]:
    return [SendStanzas(tuple(errors.error_reply(stanza, condition, text)))]
