"""A room's auth events in Synapse's own database, for Synapse's own queries. For ``synapse_oracle.py`` alone.

The server is a real one with its whole schema in a SQLite file; it only never listens. Each room is written
and asked about in one transaction, which is then rolled back: rooms of old versions share event ids.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from synapse.app.homeserver import SynapseHomeServer
from synapse.config.homeserver import HomeServerConfig
from synapse.server import HomeServer
from synapse.storage.database import LoggingTransaction, make_conn
from synapse.storage.databases.main.event_federation import StateDifference
from twisted.internet import reactor


class Database:
    """Synapse's stores over a database in ``folder``."""

    def __init__(self, folder: Path) -> None:
        hs = self._server(folder)
        stores = hs.get_datastores()
        assert stores.persist_events is not None
        self._main, self._events = stores.main, stores.persist_events
        engine = stores.main.db_pool.engine
        self._connection = make_conn(
            db_config=hs.config.database.databases[0],
            engine=engine,
            default_txn_name="oracle",
            server_name=hs.hostname,
        )
        self._transaction = LoggingTransaction(
            txn=self._connection.cursor(), name="oracle", server_name=hs.hostname, database_engine=engine
        )
        # The pool hands work to threads; the oracle has one, and one transaction.
        stores.main.db_pool.runInteraction = self._at_once  # type: ignore[method-assign]

    def _server(self, folder: Path) -> HomeServer:
        settings = {
            "server_name": "oracle",
            "report_stats": False,
            "database": {"name": "sqlite3", "args": {"database": str(folder / "synapse.db")}},
            "media_store_path": str(folder / "media"),
            "signing_key": "ed25519 a_1 " + "A" * 43,
            "trusted_key_servers": [],
            "suppress_key_server_warning": True,
            "macaroon_secret_key": "oracle",
            "form_secret": "oracle",
        }
        # Made without waiting for the disk: nobody needs this file after the run.
        with sqlite3.connect(folder / "synapse.db") as made:
            made.execute("PRAGMA journal_mode = WAL")
        config = HomeServerConfig()
        config.parse_config_dict(settings, "", "")
        hs = SynapseHomeServer(config.server.server_name, config=config, reactor=reactor)
        hs.setup()
        return hs

    async def _at_once(self, _why: str, function: Any, *args: Any, **more: Any) -> Any:
        more.pop("db_autocommit", None)
        more.pop("isolation_level", None)
        return function(self._transaction, *args, **more)

    @contextmanager
    def room(self, room_id: str, version: str, events: list[Any]) -> Iterator[None]:
        """Within it the store holds these events, each after those that it cites, as of one room."""
        txn = self._transaction
        try:
            txn.execute(
                "INSERT INTO rooms (room_id, is_public, creator, room_version, has_auth_chain_index)"
                " VALUES (?, ?, ?, ?, ?)",
                (room_id, False, "", version, True),
            )
            state = [event for event in events if event.is_state()]
            links = self._events.calculate_chain_cover_index_for_events_txn(txn, room_id, state)
            self._events._persist_event_auth_chain_txn(txn, state, links)
            yield
        finally:
            self._connection.rollback()

    async def get_auth_chain_difference(
        self, room_id: str, sets: list[set[str]], conflicted: set[str] | None, additional: set[str] | None
    ) -> StateDifference:
        """Synapse's answer."""
        found: StateDifference = await self._main.get_auth_chain_difference_extended(
            room_id, sets, conflicted, additional
        )
        return found
