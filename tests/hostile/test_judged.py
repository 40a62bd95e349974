"""The worst inputs again, against a Hansa with policies: what they cost is bounded as without them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hostile.cases import Case
from hostile.judged import JUDGED, JudgedScene, words
from hostile.scene import Scene
from hostile.test_costs import costs_no_more

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def scene(ca, tmp_path_factory) -> AsyncIterator[JudgedScene]:
    found = JudgedScene(tmp_path_factory.mktemp("judged"), ca)
    async with found.cleanup:
        yield await found.start()


async def test_the_policies_are_on(scene: Scene):
    word = next(word for word in words() if word.isascii())
    target = f"/_matrix/client/v3/rooms/{scene.den.room_id}/send/m.room.message/first"
    assert await scene.as_romeo("PUT", target, b'{"msgtype":"m.text","body":"%s"}' % word.encode()) == 403


@pytest.mark.parametrize("case", JUDGED, ids=lambda case: case.name)
async def test_what_judging_costs(scene: Scene, case: Case):
    await costs_no_more(scene, case)
