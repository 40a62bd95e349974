"""Files between a real Synapse and a Hansa, both ways, by the command line."""

from __future__ import annotations

import random

import pytest
from peers.synapse import Refusal

pytestmark = pytest.mark.e2e


def file_of(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


async def test_files_both_ways(hansa, matrix_user, tmp_path):
    alice = await matrix_user("alice")
    here = await hansa()
    await here.run("matrix", "rooms", "create", "#lobby")
    await alice.join(f"#lobby:{here.name}")

    theirs = file_of(3_000_000, 1)
    address = await alice.upload(theirs, "image/png", "harbour at dusk.png")
    target = tmp_path / "got.png"
    got = await here.run("matrix", "media", "get", address, str(target))
    assert target.read_bytes() == theirs
    assert (got["type"], got["name"], got["size"]) == ("image/png", "harbour at dusk.png", len(theirs))

    ours = file_of(3_000_000, 2)
    source = tmp_path / "kogge.jpg"
    source.write_bytes(ours)
    added = await here.run("matrix", "media", "add", str(source))
    headers, data = await alice.download(added["media"])
    assert data == ours
    assert (headers["content-type"], "kogge.jpg" in headers["content-disposition"]) == ("image/jpeg", True)

    await here.run("matrix", "media", "rm", added["media"])
    assert {m["media"] for m in await here.run("matrix", "media", "ls")} == {address}
    with pytest.raises(Refusal) as refused:
        await alice.download(added["media"][:-1] + "x")
    assert refused.value.status == 404
