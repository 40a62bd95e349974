"""The logins in the store. An account has one person, and a person one account of a network."""

from __future__ import annotations

import logging

from hansa.api.logins import AccountLogin
from hansa.logins.secret_box import SecretBox
from hansa.model.ref import NativeId
from hansa.store.base import Insert, Remove, ScopedStore
from hansa.store.conflict_retry import again_on_conflict
from hansa.store.paging import scan_all

_log = logging.getLogger("hansa.logins")


class LoginRows:
    """``store`` is the core's. Without a ``box`` there are no logins."""

    def __init__(self, store: ScopedStore, box: SecretBox | None) -> None:
        self._store = store
        self._box = box

    @property
    def has_key(self) -> bool:
        """True if secrets can be encrypted."""
        return self._box is not None

    async def insert(self, network: str, login: AccountLogin) -> None:
        """Stores a login. Raises ``Conflict`` if the account has a person, or the person an account."""
        assert self._box is not None  # ``has_key``
        person = login.person
        sealed = self._box.encrypt(login.secret, network, login.account, person.network, person.id)
        fields = {"person_network": person.network, "person": person.id}
        await self._store.commit(
            [
                Insert("login", (network, login.account), sealed, fields),
                Insert("logged_in", (person.network, person.id, network), login.account.encode()),
            ]
        )

    async def find_account(self, network: str, person: NativeId) -> str | None:
        """The account of a person on a network."""
        row = await self._store.get("logged_in", (person.network, person.id, network))
        return row.body.decode() if row is not None else None

    async def list_networks(self, person: NativeId) -> list[str]:
        """The networks on which a person has an account."""
        rows = scan_all(self._store, "logged_in", equal=(person.network, person.id))
        return [str(row.key[2]) async for row in rows]

    async def remove(self, network: str, person: NativeId) -> str | None:
        """Removes a login with its secret; the account, None if there is none."""

        async def turn() -> str | None:
            key = (person.network, person.id, network)
            mark = await self._store.get("logged_in", key)
            if mark is None:
                return None
            account = mark.body.decode()
            row = await self._store.get("login", (network, account))
            writes = [Remove("logged_in", key, mark.body)]
            if row is not None:
                writes.append(Remove("login", row.key, row.body))
            await self._store.commit(writes)
            return account

        return await again_on_conflict(turn)

    async def list_logins(self, network: str) -> list[AccountLogin]:
        """The logins of a network. Those whose secret another key encrypted are left out, and logged."""
        found = list[AccountLogin]()
        async for row in scan_all(self._store, "login", equal=(network,)):
            account = str(row.key[1])
            person = NativeId(str(row.fields["person_network"]), str(row.fields["person"]))
            parts = (network, account, person.network, person.id)
            secret = self._box.decrypt(row.body, *parts) if self._box is not None else None
            if secret is None:
                _log.warning(
                    "the login of %s on %s cannot be read: its secret was encrypted with another key. "
                    "Put the key file back, or have the person log out and in again",
                    person,
                    network,
                )
                continue
            found.append(AccountLogin(person=person, account=account, secret=secret))
        return found
