"""A directory that says whose password is right, before the accounts of this server do."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from clients.matrix_server import matrix_server
from hansa import hookimpl
from hansa.setup import PolicySetup


class Directory:
    """Knows Rosaline; fails where it is asked about Tybalt."""

    @hookimpl
    async def check(self, crossing):
        return None

    @hookimpl
    async def check_password(self, user, password):
        if user.startswith("@tybalt"):
            raise OSError("the directory is away")
        return password == "from the directory" if user.startswith("@rosaline") else None


@pytest.mark.parametrize(
    ("name", "password", "status"),
    [
        ("rosaline", "from the directory", 200), ("rosaline", "of rosaline", 403), ("alice", "of alice", 200),
        ("alice", "from the directory", 403), ("tybalt", "from the directory", 403), ("tybalt", "of tybalt", 200),
    ],
)  # fmt: skip
async def test_whom_the_directory_knows_it_decides_about(tmp_path, name, password, status):
    plugin = SimpleNamespace(api=1, open_policy=hookimpl(lambda ctx: Directory()), __name__="directory")
    async with matrix_server(tmp_path) as home:
        await home.app.reload_policies([PolicySetup(name="directory", module=plugin, options=None)])
        if name != "rosaline":
            await home.person(name)
        who = {"type": "m.id.user", "user": name}
        body = {"type": "m.login.password", "identifier": who, "password": password}
        answer = await home.anybody.ask("POST", "/login", body)
        assert answer[0] == status, answer
        if name == "rosaline":
            known = home.matrix.memberships.accounts
            assert (f"@{name}:127.0.0.1:1" in known) is (status == 200)
