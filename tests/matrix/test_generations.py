"""Caches whose values were read with an await: nothing that was taken back meanwhile gets into one."""

from __future__ import annotations

import ast
from pathlib import Path

import hansa_matrix
from hansa_matrix.bounds.generations import Generations

HOME = Path(hansa_matrix.__file__).parent


def test_what_was_revoked_while_it_was_read_is_not_kept():
    cache: Generations[str, str] = Generations(10)
    began = cache.began()
    cache.revoke_owner("alice")
    assert not cache.put("token", "alice", "read before", began)
    assert cache.get("token") is None
    assert cache.put("token", "bob", "another's", began)
    assert cache.put("other", "alice", "read after", cache.began())
    assert cache.get("other") == "read after"
    cache.revoke_owner("alice")
    assert cache.get("other") is None
    assert cache.get("token") == "another's"


def test_it_is_bounded_and_forgets_no_revocation_that_matters(monkeypatch):
    monkeypatch.setattr("hansa_matrix.bounds.generations._MAX_OWNERS", 3)
    cache: Generations[int, int] = Generations(5)
    for n in range(20):
        assert cache.put(n, f"@{n}", n, cache.began())
    assert [n for n in range(20) if n in cache] == [15, 16, 17, 18, 19]
    assert len(cache._of) == 5
    began = cache.began()
    for n in range(10):
        cache.revoke_owner(f"@{n}")
    assert len(cache._revoked) == 3
    assert not cache.put(0, "@0", 0, began)
    assert cache.put(0, "@0", 0, cache.began())


#: ``self.x[...] = `` after an await, and why nothing can be taken back there.
ALLOWED = {
    ("client_api/sync/sync.py", "_seen"): "a time, of who asks",
    ("users/remote_devices.py", "_fetching"): "a number of what is under way",
    ("users/to_device_shares.py", "_rows"): "of one batch, whose commit compares them with what is stored",
    ("users/to_device_shares.py", "_evicted"): "a count within one batch",
    ("users/to_device_shares.py", "_sums"): "a count within one batch",
    ("users/profiles.py", "_judged"): "kept with the generation from before the await, and compared with it",
    ("users/to_device.py", "_judged"): "kept with the generation from before the await, and compared with it",
}


def stores_after_await(path: Path, home: Path = HOME) -> set[tuple[str, str]]:
    """Attributes of self into which an async function puts something by key after it awaited."""
    found = set()
    for function in ast.walk(ast.parse(path.read_text())):
        if not isinstance(function, ast.AsyncFunctionDef):
            continue
        waits = [
            n.lineno for n in ast.walk(function) if isinstance(n, ast.Await | ast.AsyncFor | ast.AsyncWith)
        ]
        for node in ast.walk(function):
            targets = (
                node.targets
                if isinstance(node, ast.Assign)
                else [node.target]
                if isinstance(node, ast.AnnAssign | ast.AugAssign)
                else []
            )
            for target in targets:
                for one in target.elts if isinstance(target, ast.Tuple) else [target]:
                    if (
                        isinstance(one, ast.Subscript)
                        and isinstance(one.value, ast.Attribute)
                        and isinstance(one.value.value, ast.Name)
                        and one.value.value.id == "self"
                        and any(line < node.lineno for line in waits)
                    ):
                        found.add((str(path.relative_to(home)), one.value.attr))
    return found


def test_no_cache_of_what_people_may_is_filled_after_an_await_but_by_generations():
    paths = [*(HOME / "client_api").rglob("*.py"), *(HOME / "users").glob("*.py")]
    paths += [*(HOME / "local").glob("*.py"), HOME / "rooms" / "typing_and_receipts.py"]
    found = {one for path in paths for one in stores_after_await(path)}
    assert found - ALLOWED.keys() == set()


def test_that_test_sees_what_it_is_for(tmp_path):
    source = tmp_path / "bad.py"
    source.write_text("class A:\n async def f(self, k):\n  v = await self.g(k)\n  self._known[k] = v\n")
    assert stores_after_await(source, tmp_path) == {("bad.py", "_known")}
