"""Two PostgreSQL servers, of which one follows the other by streaming replication."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from peers.postgres import Postgres
from peers.waiting import until


async def off(call: Callable[..., Any], *args: object) -> Any:
    """A call that takes long, beside the loop."""
    return await asyncio.get_running_loop().run_in_executor(None, call, *args)


class Pair:
    """A primary, its standby ``second``, and the URL of a database that names both."""

    def __init__(self) -> None:
        self.first = Postgres()
        self.second = Postgres()

    async def start(self) -> Pair:
        await off(self.first.start)
        name = urlsplit(self.first.database()).path
        await off(self.second.standby_of, self.first, "second")
        await off(self.second.start)
        await until("the standby follows", lambda: off(self.follows), 60)
        hosts = f"127.0.0.1:{self.first.port},127.0.0.1:{self.second.port}"
        self.url = f"postgres://hansa@{hosts}{name}"
        self.on_second = f"postgres://hansa@127.0.0.1:{self.second.port}{name}"
        return self

    def follows(self) -> bool:
        return self.first.sql("SELECT state FROM pg_stat_replication") == "streaming"

    async def wait_for_the_standby(self) -> None:
        """A commit is acknowledged when the standby has it, from now on."""
        await off(self.first.sql, "ALTER SYSTEM SET synchronous_standby_names = 'second'")
        await off(self.first.sql, "SELECT pg_reload_conf()")

        async def asked() -> bool:
            return await off(self.first.sql, "SELECT sync_state FROM pg_stat_replication") == "sync"

        await until("the standby is waited for", asked)

    async def promote(self) -> None:
        await off(self.second.sql, "SELECT pg_promote()")

    def waits(self) -> bool:
        return (
            self.first.sql(
                "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND wait_event = 'SyncRep'"
            )
            == "1"
        )

    def stop(self) -> None:
        for server in (self.first, self.second):
            server.stop()
