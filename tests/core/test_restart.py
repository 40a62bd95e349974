"""A reload names the settings that it cannot apply, and never their values."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import hansa_governance
import hansa_matrix
import hansa_xmpp
import pytest
from hansa.config.reader import parse
from hansa.config.restart import needing_restart
from hansa.config.settings import TlsConfig

PLUGINS = {"matrix": hansa_matrix, "xmpp": hansa_xmpp, "governance": hansa_governance}


def find(name, opens=""):
    return PLUGINS[name]


SECRET = "correct-horse"


def _data(folder: Path) -> dict:
    key = folder / "matrix.key"
    key.touch(0o600)
    key.write_text("ed25519 a_1 " + "A" * 43)
    return {
        "server": {"listen": ["http://127.0.0.1:8008"]},
        "networks": {
            "matrix": {"plugin": "matrix", "server_name": "example.org"},
            "office": {"plugin": "xmpp", "component": "gw.x", "secret": "s"},
        },
        "policies": {"house": {"plugin": "governance", "words": ["a"]}},
        "rooms": [{"links": ["matrix:#lobby"]}],
    }


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda d: d["policies"]["house"].update(words=["b"], mode="shadow"), []),
        (lambda d: d["policies"].clear(), []),
        (lambda d: d["networks"]["matrix"].update(room_version="11"), ["networks.matrix.room_version"]),
        (lambda d: d["networks"]["matrix"].update(throttle={"rate": 1.0}), ["networks.matrix.throttle"]),
        (lambda d: d["networks"]["office"].update(secret=SECRET, port=1), ["networks.office.port", "networks.office.secret"]),
        (lambda d: d["networks"].pop("office"), ["networks.office"]),
        (lambda d: d["networks"].update(more=d["networks"]["office"]), ["networks.more"]),
        (lambda d: d["server"].update(metrics="127.0.0.1:1"), ["server.metrics"]),
        (lambda d: d.update(store={"url": f"mongodb://u:{SECRET}@x/y"}), ["store.url"]),
        (lambda d: d.update(media={"folder": "elsewhere"}), ["media.folder"]),
        (lambda d: d["rooms"][0].update(published=True), ["rooms"]),
    ],
)  # fmt: skip
def test_what_waits_for_a_restart(tmp_path, change, named):
    before = parse(_data(tmp_path), tmp_path, find)
    data = _data(tmp_path)
    change(data)
    found = needing_restart(before, parse(data, tmp_path, find))
    assert sorted(found) == named
    assert SECRET not in " ".join(found)
    live = needing_restart(before, parse(data, tmp_path, find), networks_reload=True)
    assert sorted(live) == [name for name in named if not name.startswith("networks.")]


def test_the_certificate_of_a_network_waits_for_a_restart(tmp_path):
    before = parse(_data(tmp_path), tmp_path, find)
    (changed,) = [one for one in before.networks if one.id == "matrix"]
    named = replace(changed, tls=TlsConfig(certificate=Path("a"), key=Path("b")))
    after = replace(before, networks=(named,))
    assert needing_restart(before, after, networks_reload=True) == ["networks.matrix.tls"]
