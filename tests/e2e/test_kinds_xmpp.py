"""What two users of a real Prosody do besides speaking, in a room that Hansa hosts."""

from __future__ import annotations

import pytest
from e2e.three_servers import LOBBY, MUC, wait_linked, xmpp_config

pytestmark = pytest.mark.e2e


def groupchat(inner: str, id_: str) -> str:
    return f"<message to='{MUC}' type='groupchat' id='{id_}'>{inner}</message>"


async def test_two_occupants_correct_react_and_retract(hansa, prosody, xmpp_user):
    server = await hansa(xmpp_config(prosody) + LOBBY)
    await wait_linked(server)
    juliet, romeo = await xmpp_user("juliet"), await xmpp_user("romeo")
    await juliet.join(MUC, "Juliet")
    await romeo.join(MUC, "Romeo")

    async def shown(tag):
        def there():
            return next((e for e in romeo.stanzas if e.find(tag) is not None), None)

        return await romeo.until(tag, there)

    juliet.raw(groupchat("<body>helo</body><x xmlns='urn:some:ext'>kept</x>", "k1"))
    first = await shown("{urn:some:ext}x")
    stable = first.find("{urn:xmpp:sid:0}stanza-id").get("id")
    juliet.raw(groupchat("<body>hello</body><replace xmlns='urn:xmpp:message-correct:0' id='k1'/>", "k2"))
    assert (await shown("{urn:xmpp:message-correct:0}replace"))[0].text == "hello"
    mark = f"<reactions xmlns='urn:xmpp:reactions:0' id='{stable}'><reaction>👍</reaction></reactions>"
    juliet.raw(groupchat(mark, "k3"))
    reactions = (await shown("{urn:xmpp:reactions:0}reactions")).find("{urn:xmpp:reactions:0}reactions")
    assert (reactions.get("id"), [r.text for r in reactions]) == (stable, ["👍"])
    juliet.raw(groupchat(f"<retract xmlns='urn:xmpp:message-retract:1' id='{stable}'/>", "k4"))
    retract = await shown("{urn:xmpp:message-retract:1}retract")
    assert retract.find("{urn:xmpp:message-retract:1}retract").get("id") == stable
