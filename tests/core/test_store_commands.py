"""`hansa store` on the database of a real process: while it runs, while it does not, and into another store."""

from __future__ import annotations

import asyncio
import json
import shutil

import pytest
from hansa.cli.main import main
from hansa.store import catalogue, open_store
from hansa.store.base import Schema
from peers.ca import PrivateCA
from peers.hansa import CommandFailed, Hansa


@pytest.mark.timeout(120)
async def test_a_backup_made_while_it_runs_comes_back_with_its_rooms(tmp_path, capsys):
    house = Hansa(tmp_path / "house", PrivateCA(tmp_path / "ca"))
    await house.start()
    alice = await house.user("alice")
    room = await alice.create_room()
    await alice.say(room, "before")
    said = await house.run("store", "check")
    assert said["ok"] and "only the file was checked" in said["notes"][0]
    made = await house.run("store", "backup", str(tmp_path / "kept"))
    await alice.say(room, "after")
    with pytest.raises(CommandFailed, match="in use: stop Hansa first"):
        await house.run("store", "restore", str(tmp_path / "kept"))
    assert await house.stop() == 0
    checked = await house.run("store", "check")
    assert checked["ok"] and checked["rows"] > 30 and not checked["notes"]
    with pytest.raises(CommandFailed, match="--replace"):
        await house.run("store", "restore", str(tmp_path / "kept"))
    assert (await house.run("store", "restore", str(tmp_path / "kept"), "--replace"))["position"] == made[
        "position"
    ]
    await house.start()
    assert "before" in await alice.bodies(room) and "after" not in await alice.bodies(room)
    await alice.say(room, "again")
    assert "again" in await alice.bodies(room)
    await alice.close()
    await house.stop()

    capsys.readouterr()
    assert await asyncio.to_thread(main, ["store", "check", "-c", str(house.config)]) == 0
    assert capsys.readouterr().out.startswith("good: ")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["mongo", "postgres"])
async def test_a_house_moves_to_another_database_and_back(kind, tmp_path, request):
    """Messages on one store are there on the other, and the room goes on from there."""
    url = request.getfixturevalue(f"{kind}_url")
    house = Hansa(tmp_path / "house", PrivateCA(tmp_path / "ca"))
    await house.start()
    alice = await house.user("alice")
    room = await alice.create_room()
    await alice.say(room, "on sqlite")
    with pytest.raises(CommandFailed, match="in use"):
        await house.run("store", "copy", str(house.config), url)
    await house.stop()
    found = await house.run("store", "copy", str(house.config), url)
    assert found["rows"] > 30 and not found["resumed"]
    with pytest.raises(CommandFailed, match="not empty"):
        await house.run("store", "copy", str(house.config), url)
    shutil.move(house.folder / "hansa.db", tmp_path / "aside.db")
    house.config.write_text(house.config.read_text().replace("sqlite:hansa.db", url))
    await house.start()
    await alice.say(room, "elsewhere")
    assert {"on sqlite", "elsewhere"} <= set(await alice.bodies(room))
    await house.stop()
    assert (await house.run("store", "check"))["wrong"] == []
    back = await house.run("store", "copy", url, f"sqlite:{tmp_path}/back.db")
    assert back["position"] > found["position"]
    house.config.write_text(house.config.read_text().replace(url, f"sqlite:{tmp_path}/back.db"))
    await house.start()
    assert {"on sqlite", "elsewhere"} <= set(await alice.bodies(room))
    await alice.close()
    await house.stop()


def test_other_databases_have_backups_of_their_own(tmp_path, capsys):
    folder = tmp_path / "house"
    assert main(["init", str(folder)]) == 0
    config = folder / "hansa.toml"
    config.write_text(config.read_text().replace("sqlite:hansa.db", "mongodb://u:secret@127.0.0.1:1/hansa"))
    capsys.readouterr()
    assert main(["store", "backup", str(tmp_path / "kept"), "-c", str(config)]) == 1
    said = capsys.readouterr().err
    assert "mongodump" in said and "secret" not in said


def test_a_check_of_a_damaged_file_fails(tmp_path, capsys):
    folder = tmp_path / "house"
    assert main(["init", str(folder)]) == 0
    config = folder / "hansa.toml"
    assert main(["store", "check", "-c", str(config)]) == 1, "there is no database yet"
    (folder / "hansa.db").write_bytes(b"SQLite format 3\0" + bytes(5000))
    capsys.readouterr()
    assert main(["store", "check", "--json", "-c", str(config)]) == 1
    out = capsys.readouterr()
    assert json.loads(out.out)["wrong"]


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        ("sqlite:hansa.db", "sqlite:./hansa.db", "the same database"),
        ("hansa.toml", "sqlite:hansa.db", "the same database"),
        (
            "postgres://a:b@127.0.0.1:1/hansa",
            "postgres://127.0.0.1:1/hansa?sslmode=disable",
            "the same database",
        ),
        ("sqlite:hansa.bd", "sqlite:copy.db", "hansa.bd to copy from"),
        ("hansa.tmol", "sqlite:copy.db", "hansa.tmol: is not a store"),
        ("house.toml", "sqlite:copy.db", "there is no configuration house.toml"),
        ("mysql://u:secret@host/hansa", "sqlite:copy.db", "a URL: is not a store"),
    ],
)
def test_a_copy_that_cannot_be_meant_makes_no_file(source, target, said, tmp_path, capsys, monkeypatch):
    assert main(["init", str(tmp_path / "house")]) == 0
    monkeypatch.chdir(tmp_path / "house")
    (tmp_path / "house" / "hansa.db").touch()
    before = sorted((tmp_path / "house").iterdir())
    capsys.readouterr()
    assert main(["store", "copy", source, target]) == 1
    told = capsys.readouterr().err
    assert said in told and "secret" not in told and "in use" not in told
    assert sorted((tmp_path / "house").iterdir()) == before


@pytest.mark.parametrize("kind", ["mongo", "postgres"])
def test_a_copy_of_a_database_onto_itself_under_another_name_is_told_so(kind, request, capsys):
    url = request.getfixturevalue(f"{kind}_url")
    assert "127.0.0.1" in url
    assert main(["store", "copy", url, url.replace("127.0.0.1", "localhost")]) == 1
    told = capsys.readouterr().err
    assert "the same database under two names" in told and "in use" not in told


def test_a_copy_of_a_file_onto_its_other_name_is_told_so(tmp_path, capsys):
    (tmp_path / "a.db").touch()
    (tmp_path / "b.db").hardlink_to(tmp_path / "a.db")
    assert main(["store", "copy", f"sqlite:{tmp_path}/a.db", f"sqlite:{tmp_path}/b.db"]) == 1
    assert "the same database under two names" in capsys.readouterr().err


def test_a_backup_is_not_put_among_the_files_of_people(tmp_path, capsys):
    assert main(["init", str(tmp_path / "house")]) == 0
    config = str(tmp_path / "house" / "hansa.toml")
    (tmp_path / "house" / "hansa.db").touch()
    for folder in ("media", "media/kept"):
        capsys.readouterr()
        assert main(["store", "backup", str(tmp_path / "house" / folder), "-c", config]) == 1
        assert "media folder" in capsys.readouterr().err
        assert not (tmp_path / "house" / folder).exists()


async def test_nothing_runs_on_half_a_copy(tmp_path):
    house = Hansa(tmp_path / "house", PrivateCA(tmp_path / "ca"))
    store = open_store("sqlite:hansa.db", house.folder)
    await store.open()
    await store.declare("", catalogue.SCHEMA)
    await store.commit("", [catalogue.row("", Schema(owner=catalogue.COPY, version=1, collections=()))])
    await store.close()
    with pytest.raises(RuntimeError, match="half a copy"):
        await house.start()
