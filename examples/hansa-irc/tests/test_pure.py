"""Lines, the server's features, formatting, registration: without I/O."""

from __future__ import annotations

import pytest
from hansa import Formatted, Message, RemoteProtocolError, Role, Span, SpanKind, Style
from hansa_irc.channels import Channels, role_of
from hansa_irc.formatting import divide_formatted, read_formatted, read_message, write_formatted
from hansa_irc.isupport import ServerFeatures, make_nick, nick_candidates, with_tokens
from hansa_irc.lines import MAX_LINE, Line, divide_text, format_line, is_nick, parse_line, room_for_text
from hansa_irc.registration import Registration
from hansa_irc.rendering import MAX_LINES, Speaker, render_message

BRIDGE = Speaker(source="hansa!~hansa@host.example", name="Zoe")


def test_a_line_is_parsed():
    line = parse_line(rb"@time=2026-01-01T00:00:00Z;k=a\:b\s\\c\n :ann!~a@h PRIVMSG  #room :hi : there")
    assert (line.command, line.params, line.nick) == ("PRIVMSG", ("#room", "hi : there"), "ann")
    assert line.tags == {"time": "2026-01-01T00:00:00Z", "k": "a;b \\c\n"}
    assert parse_line(b"PING").params == ()
    assert parse_line(b":x PRIVMSG #r :caf\xe9").params[1] == "café"


@pytest.mark.parametrize(
    "raw", [b"", b":source", b"@tag", b"PRIV MSG\0", b"12", b"1234", b"X " + b"a " * 16, b"A" * 9000, b"A\rB"]
)
def test_what_is_no_line_is_the_peers_fault(raw):
    with pytest.raises(RemoteProtocolError):
        parse_line(raw)


@pytest.mark.parametrize(
    "params",
    [("#r", "a\r\nQUIT"), ("#r", "a\nb"), ("#r", "\0"), ("a b", "c"), ("", "c"), (":a", "c"), ("x" * 600,)],
)
def test_a_line_cannot_become_another(params):
    with pytest.raises(ValueError, match=r"cannot be written|bytes"):
        format_line("PRIVMSG", *params)


def test_text_is_divided_between_words_and_never_within_a_character():
    text = "wörd " * 300 + "é" * 700 + "😀" * 200
    pieces = list(divide_text(text, 99))
    assert all(len(piece.encode()) <= 99 for piece in pieces)
    assert "".join(pieces).replace(" ", "") == text.replace(" ", "")
    assert all(word == "wörd" for piece in pieces[:10] for word in piece.split())


def test_every_line_of_a_message_fits_with_the_prefix_that_others_get():
    message = Message(text="é" * 900, spans=(Span(start=0, end=900, kind=SpanKind.BOLD),))
    raw = render_message(message, "#room", BRIDGE)
    assert all(len(f":{BRIDGE.source} ".encode()) + len(line) <= MAX_LINE for line in raw)
    assert all(line.decode().count("\x02") in {1, 2} for line in raw)
    assert room_for_text("a!b@c", "PRIVMSG", "#r") == MAX_LINE - len(":a!b@c PRIVMSG #r :\r\n")


def test_many_lines_are_bounded_and_what_is_missing_is_said():
    raw = render_message(Message(text="\n".join("abc") * 40), "#room", BRIDGE)
    assert len(raw) == MAX_LINES + 1
    assert b"lines more are not shown here" in raw[-1]


def test_formatting_goes_both_ways():
    written = "a \x02b\x1dc\x02d\x0f \x0304,05red\x03 \x1funder\x1f \x11code\x11 \x1egone"
    formatted = read_formatted(written)
    assert formatted.text == "a bcd red under code gone"
    assert {span.kind for span in formatted.spans} == {
        SpanKind.BOLD,
        SpanKind.ITALIC,
        SpanKind.CODE,
        SpanKind.STRIKE,
    }
    (line,) = write_formatted(formatted)
    assert read_formatted(line) == formatted


def test_a_formatted_text_of_two_lines_is_formatted_in_both():
    text = "one\n\ntwo"
    spans = (Span(start=0, end=len(text), kind=SpanKind.BOLD),)
    assert write_formatted(Formatted(text=text, spans=spans)) == ["\x02one", "\x02two\x02"]
    pieces = list(divide_formatted("\x02" + "word " * 20 + "\x02", 40))
    assert all(piece.startswith("\x02") for piece in pieces)


def test_links_quotes_and_controls_are_text():
    text = "see\nit\x01\x03"
    spans = (
        Span(start=0, end=3, kind=SpanKind.QUOTE),
        Span(start=4, end=6, kind=SpanKind.LINK, value="https://x.example/"),
    )
    assert write_formatted(Formatted(text=text, spans=spans)) == ["> see", "it (https://x.example/)"]


def test_ctcp_is_an_emote_or_nothing():
    assert read_message("\x01ACTION waves\x01", notice=False) == Message(text="waves", style=Style.EMOTE)
    assert read_message("\x01VERSION\x01", notice=False) is None
    assert read_message("\x02\x02", notice=False) is None
    assert read_message("beep", notice=True) == Message(text="beep", style=Style.NOTICE)


def test_the_servers_features_are_believed_where_they_make_sense():
    tokens = ["CASEMAPPING=ascii", "NICKLEN=30", "PREFIX=(qov)~@+", "CHANTYPES=#", "CHANMODES=beI,k,l,imnst"]
    features = with_tokens(ServerFeatures(), tokens)
    assert (features.nick_length, features.channel_types, features.list_modes) == (30, "#", "beI")
    assert features.fold("A[]") == "a[]"
    assert ServerFeatures().fold("A[]\\^") == "a{}|~"
    assert features.split_prefixes("~@ann") == (frozenset("qo"), "ann")
    assert features.mode_changes(["+ob-l+k", "ann", "x!*@*", "key"]) == [
        (True, "o", "ann"),
        (True, "b", "x!*@*"),
        (False, "l", ""),
        (True, "k", "key"),
    ]
    bad = ["CASEMAPPING=x", "NICKLEN=-1", "NICKLEN=9999999", "PREFIX=(ov)@", "CHANMODES=b", "CHANTYPES=", "="]
    assert with_tokens(features, bad) == features


def test_nicks():
    assert make_nick("Zoë the Great!", 30) == "Zo_the_Great"
    assert make_nick("007", 9) == "_007"
    assert make_nick("→", 9) == "guest"
    names = list(nick_candidates("abcdefghi", 9))
    assert len(set(names)) == len(names) == 12
    assert max(map(len, names)) == 9


def test_a_nick_in_use_is_another_one():
    registration = Registration("hansa", "hansa", "Hansa")
    assert registration.begin()[0] == b"CAP LS :302\r\n"
    assert registration.receive(parse_line(b":s 433 * hansa :in use")) == [b"NICK :hansa_\r\n"]
    registration.receive(parse_line(b":s 001 hansa_ :welcome"))
    assert registration.done
    assert registration.nick == "hansa_"
    stubborn = Registration("hansa", "hansa", "Hansa")
    while stubborn.receive(parse_line(b":s 433 * hansa :in use")):
        pass
    assert "in use" in stubborn.failure


def test_sasl_is_said_in_pieces_and_is_never_left_out():
    long = Registration("hansa", "hansa", "Hansa", sasl=("account", "p" * 500))
    assert long.receive(parse_line(b"CAP * LS * :multi-prefix")) == []
    assert long.receive(parse_line(b"CAP * LS :sasl=PLAIN")) == [b"CAP REQ :multi-prefix sasl\r\n"]
    assert long.receive(parse_line(b"CAP * ACK :multi-prefix sasl")) == [b"AUTHENTICATE :PLAIN\r\n"]
    pieces = long.receive(parse_line(b"AUTHENTICATE +"))
    assert len(pieces) == 2
    assert len(pieces[0]) == len(b"AUTHENTICATE :\r\n") + 400
    assert long.receive(parse_line(b":s 903 * :done")) == [b"CAP :END\r\n"]
    for lines in ([b"CAP * LS :x"], [b":s 001 hansa :welcome"], [b":s 904 * :no"], [b"CAP * NAK :sasl"]):
        without = Registration("hansa", "hansa", "Hansa", sasl=("account", "secret"))
        for raw in lines:
            without.receive(parse_line(raw))
        assert without.failure
        assert not without.done


def said(channels: Channels, *lines: str) -> list:
    return [one.content for raw in lines for one in channels.receive(parse_line(raw.encode()))]


def test_the_names_of_a_channel_are_compared_with_who_is_shown():
    channels = Channels("irc", {"hansa": None}, members=2)
    channels.open("#room", {"left"})
    contents = said(channels, ":s 353 hansa = #room :hansa @Ann +Bob Cat", ":s 366 hansa #room :End")
    assert [(c.user.id, c.membership.value) for c in contents] == [
        ("left", "leave"),
        ("ann", "join"),
        ("bob", "join"),
    ]
    assert role_of(channels.by_name["#room"].ranks["ann"]) is Role.MODERATOR
    contents = said(channels, ":Cat!c@h PRIVMSG #room :here")
    assert [c.kind.value for c in contents] == ["member", "message"]


def test_a_rank_and_a_ban_are_what_a_person_did():
    channels = Channels("irc", {"hansa": None}, members=9)
    channels.open("#room", set())
    said(channels, ":s 353 hansa = #room :hansa @Ann Bob", ":s 366 hansa #room :End")
    (content,) = said(channels, ":Ann!a@h MODE #room +o Bob")
    assert (content.user.id, content.role) == ("bob", Role.MODERATOR)
    assert said(channels, ":hansa!h@h MODE #room +v Bob", ":Ann!a@h MODE #room +b *!*@evil.example") == []
    (content,) = said(channels, ":Ann!a@h MODE #room +b Bob!*@*")
    assert (content.user.id, content.membership.value) == ("bob", "ban")


def test_a_burst_of_splits_is_no_burst_of_leaves():
    channels = Channels("irc", {"hansa": None}, members=9)
    channels.open("#room", set())
    said(channels, ":s 353 hansa = #room :hansa Ann Bob", ":s 366 hansa #room :End")
    assert said(channels, ":Ann!a@h QUIT :a.example b.example", ":Bob!b@h QUIT :a.example b.example") == []
    assert said(channels, ":Ann!a@h JOIN #room") == []
    assert [one.content.user.id for one in channels.give_up_split()] == ["bob"]
    assert [c.reason for c in said(channels, ":Ann!a@h QUIT :bye now")] == ["bye now"]


def test_a_line_has_defaults():
    assert Line(command="X").param(3) == ""


def test_a_nick_names_one_person():
    assert all(is_nick(text) for text in ("ann", "[ann]|away", "ann^_", "\u00c4nne", "a-1", "`a`"))
    many = ("", "*", "a?n", "ann,bob", "#room", "&room", "$*.net", "ann!a@b", "an n", ":ann", "a\x07n")
    assert not [text for text in many if is_nick(text)]
