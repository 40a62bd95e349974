"""`hansa matrix doctor` on servers that are well and on servers that are not."""

from __future__ import annotations

from typing import Any

import pytest
from hansa.environment import SystemClock
from hansa_matrix.admin.commands import _format_findings
from peers.ca import PrivateCA
from peers.process import free_port
from peers.scripted_hansa import ScriptedHansa

pytestmark = pytest.mark.e2e


async def examine(hansa: ScriptedHansa, *server: str) -> tuple[bool, dict[str, list[Any]]]:
    code, found = await hansa.hansa.findings("matrix", "doctor", *server)
    assert code == (0 if found["healthy"] else 1)
    listed: dict[str, list[Any]] = {}
    for finding in found["findings"]:
        listed.setdefault(finding["check"], []).append(finding)
    text = _format_findings(found)
    assert all(f["text"] in text and f["advice"] in text for f in found["findings"])
    return found["healthy"], listed


async def test_a_real_synapse_and_ourselves_are_well(stage, synapse):
    hansa = await stage()
    healthy, found = await examine(hansa, synapse.name)
    assert healthy and list(found) == ["discovery", "connection", "clock", "keys", "signed request"]
    assert "Synapse" in found["connection"][0]["text"]
    assert {f["state"] for listed in found.values() for f in listed} == {"ok"}
    healthy, found = await examine(hansa)
    assert healthy and "Hansa" in found["connection"][0]["text"]


async def test_nobody_there(stage):
    hansa = await stage()
    healthy, found = await examine(hansa, f"127.0.0.1:{free_port()}")
    assert not healthy and "firewall" in found["connection"][0]["advice"]
    assert found["connection"][0]["text"].count("127.0.0.1:") == 1
    healthy, found = await examine(hansa, "nobody.invalid:8448")
    assert not healthy and found["connection"][0]["advice"] == "the name is not in the DNS"
    healthy, found = await examine(hansa, "127.0.0.1:99999")
    assert not healthy and list(found) == ["name"]


async def test_a_certificate_by_nobody_we_trust(stage, tmp_path):
    hansa = await stage()
    other = ScriptedHansa(tmp_path / "other", PrivateCA(tmp_path / "their-ca"))
    await other.start()
    try:
        healthy, found = await examine(hansa, other.name)
        assert not healthy and found["connection"][0]["state"] == "fail"
        assert "ca_file" in found["connection"][0]["advice"]
    finally:
        await other.stop()


async def test_a_name_that_leads_to_another_server(stage):
    hansa, other = await stage(), await stage()
    name = other.name.replace("127.0.0.1", "localhost")
    healthy, found = await examine(hansa, name)
    assert not healthy and found["keys"][0]["state"] == "fail"
    assert f"not that of {name}" in found["keys"][0]["text"]


class Later(SystemClock):
    """A clock that is fast."""

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds

    def now(self) -> int:
        return super().now() + self._seconds * 1000


async def test_clocks_that_are_apart(stage, synapse, monkeypatch):
    hansa = await stage()
    for seconds, state in ((5, "ok"), (30, "warn"), (300, "fail")):
        context = type("Context", (), {"clock": Later(seconds)})()
        monkeypatch.setattr(hansa.matrix.doctor, "_ctx", context)
        _, found = await examine(hansa, synapse.name)
        assert found["clock"][0]["state"] == state
