"""Files of messages, read from stanzas and written into them."""

from __future__ import annotations

import pytest
from hansa import Attachment, Message, NativeId
from hansa_xmpp.proto import convert
from hansa_xmpp.proto.files import MAX_FILES
from hansa_xmpp.proto.message_xml import content_xml
from xmpp.stanzas import arrived, groupchat

URL = "https://up.example/a%20b/cat.jpg"
OOB = f"<x xmlns='jabber:x:oob'><url>{URL}</url></x>"
FALLBACK = "<fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:sfs:0'>{}</fallback>"
PICTURE = Attachment(
    name="balcony.png",
    media_type="image/png",
    size=120_000,
    width=640,
    height=480,
    source=NativeId("matrix", "mxc://m.example/1"),
    sha256="ab" * 32,
)


def shared(file: str, target: str = URL) -> str:
    return (
        f"<file-sharing xmlns='urn:xmpp:sfs:0'><file xmlns='urn:xmpp:file:metadata:0'>{file}</file>"
        f"<sources><url-data xmlns='http://jabber.org/protocol/url-data' target='{target}'/></sources>"
        "</file-sharing>"
    )


def content(inner: str) -> object:
    return convert.content_of(arrived(groupchat("j@x.example/a", inner)), "xmpp")


def test_a_url_out_of_band_is_a_file() -> None:
    cat = Attachment(name="cat.jpg", media_type="image/jpeg", source=NativeId("xmpp", URL))
    assert content(f"<body>{URL}</body>{OOB}") == content(OOB) == Message(text="", attachments=(cat,))
    assert content(f"<body>see {URL}</body>{OOB}") == Message(text=f"see {URL}")


def test_a_shared_file_has_its_facts_and_its_caption() -> None:
    facts = (
        "<media-type>image/png</media-type><name>a.png</name><size>5</size><width>2</width><height>3</height>"
        "<length>7</length><hash xmlns='urn:xmpp:hashes:2' algo='sha-256'>" + "A" * 43 + "=</hash>"
    )
    file = Attachment(
        name="a.png",
        media_type="image/png",
        size=5,
        width=2,
        height=3,
        duration=7,
        source=NativeId("xmpp", URL),
        sha256="00" * 32,
    )
    assert content(shared(facts)) == Message(text="", attachments=(file,))
    assert content(f"<body>{URL}</body>{shared(facts)}{FALLBACK.format('')}") == Message(
        text="", attachments=(file,)
    )
    part = FALLBACK.format(f"<body start='5' end='{5 + len(URL)}'/>")
    assert content(f"<body>look\n{URL}</body>{shared(facts)}{part}") == Message(
        text="look", attachments=(file,)
    )


@pytest.mark.parametrize(
    "target",
    [
        "javascript:x",
        "file:///etc/passwd",
        "https://",
        "https://a b",
        "https://[x",
        "https://x/" + "a" * 3000,
    ],
)
def test_what_is_not_on_the_web_is_not_a_file(target: str) -> None:
    assert content(f"<body>x</body>{shared('<name>a</name>', target)}") == Message(text="x")


def test_wrong_facts_are_left_out_and_files_are_bounded() -> None:
    bad = (
        "<media-type>image/../x</media-type><name>../a/b&#10;</name><size>-1</size><width>1e9</width>"
        "<height>9999999999999999</height><hash xmlns='urn:xmpp:hashes:2' algo='sha-256'>!!!</hash>"
    )
    found = content(shared(bad) * (MAX_FILES + 1))
    assert isinstance(found, Message)
    assert (
        found.attachments
        == (Attachment(name="..ab", media_type="image/jpeg", source=NativeId("xmpp", URL)),) * MAX_FILES
    )


def test_a_file_is_a_url_that_clients_show_as_a_picture() -> None:
    inner = content_xml(Message(text="", attachments=(PICTURE,)), link_of=lambda _: URL)
    assert inner is not None
    assert f"<body>{URL}</body>" in inner
    assert OOB in inner
    back = content(inner)
    assert isinstance(back, Message)
    (file,) = back.attachments
    assert (file.name, file.size, file.width, file.sha256) == ("balcony.png", 120_000, 640, "ab" * 32)
    assert back.text == ""


def test_a_caption_and_files_without_a_link_are_words() -> None:
    inner = content_xml(Message(text="👍 look", attachments=(PICTURE, PICTURE)), link_of=lambda _: URL)
    back = content(inner or "")
    assert isinstance(back, Message)
    assert (back.text, len(back.attachments)) == ("👍 look", 2)
    inner = content_xml(Message(text="look", attachments=(PICTURE,)), link_of=lambda _: "")
    assert content(inner or "") == Message(text="look\n[picture balcony.png, 120 KB]")
