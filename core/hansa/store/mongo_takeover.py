"""A standby requests the lease of the process that has it, in a row beside the lease's.

The row names the token of the present holder, so that it does not concern the next one, and is good for as
long as a lease is. Nothing waits for the lease's own row, which every transaction changes.
"""

from __future__ import annotations

from typing import Any

from hansa.store.lease_owner import this_process
from hansa.store.mongo_lease import ID, NOW, ROWS, SECONDS

_REQUEST_ID = "wish"


async def request_takeover(database: Any) -> None:
    """Ask the present holder to release the lease. Raises PyMongoError."""
    rows = database[ROWS]
    held = await rows.find_one({"_id": ID})
    if held is None:
        return
    await rows.update_one({"_id": _REQUEST_ID}, {"$setOnInsert": {"token": "", "until": 0}}, upsert=True)
    request = {
        "token": {"$literal": held["token"]},
        "owner": {"$literal": this_process()},
        "until": {"$add": [NOW, SECONDS * 1000]},
    }
    await rows.update_one({"_id": _REQUEST_ID}, [{"$set": request}])


async def takeover_requested_by(database: Any) -> str:
    """``HOST PID`` of the process that requests the lease of the present holder. Raises PyMongoError."""
    rows = database[ROWS]
    request = await rows.find_one({"_id": _REQUEST_ID, "$expr": {"$gt": ["$until", NOW]}})
    if request is None:
        return ""
    held = await rows.find_one({"_id": ID})
    if held is None or held["token"] != request["token"]:
        return ""
    return f"{request['owner']['host']} {request['owner']['pid']}"
