"""A standby requests the lease of the process that has it, in a row beside the lease's.

The row names the token of the present holder, so that it does not concern the next one, and is good for as
long as a lease is. Nothing waits for the lease's own row, which every transaction changes.
"""

from __future__ import annotations

from typing import Any

from hansa.store.lease_owner import this_process
from hansa.store.postgres_lease import SECONDS, TABLE

_REQUEST = f"""
INSERT INTO {TABLE}
SELECT 2, token, $1, $2, $3, $4, clock_timestamp() + interval '{SECONDS} s', 0, 0 FROM {TABLE} WHERE id = 1
ON CONFLICT (id) DO UPDATE SET token = excluded.token, host = excluded.host, pid = excluded.pid,
  born = excluded.born, namespace = excluded.namespace, until = excluded.until
"""
#: ``HOST PID`` of the process that requests the lease of the present holder.
REQUESTED_BY = f"""
SELECT w.host || ' ' || w.pid FROM {TABLE} w JOIN {TABLE} l ON l.id = 1 AND l.token = w.token
WHERE w.id = 2 AND w.until > clock_timestamp()
"""


async def request_takeover(connection: Any) -> None:
    """Ask the present holder to release the lease. Raises an error of the driver."""
    mine = this_process()
    await connection.execute(_REQUEST, mine["host"], mine["pid"], mine["born"], mine["namespace"])
