"""A standby asks for the database of the process that has it, in a row beside the lease's.

The row names the token of the present holder, so that it does not concern the next one, and is good for as
long as a lease is. Nothing waits for the lease's own row, which every transaction changes.
"""

from __future__ import annotations

from typing import Any

from hansa.store.lease_owner import this_process
from hansa.store.mongo_lease import ID, NOW, ROWS, SECONDS

_WISH = "wish"


async def wish(database: Any) -> None:
    """Ask the holder of now to let go. Raises PyMongoError."""
    rows = database[ROWS]
    held = await rows.find_one({"_id": ID})
    if held is None:
        return
    await rows.update_one({"_id": _WISH}, {"$setOnInsert": {"token": "", "until": 0}}, upsert=True)
    wanted = {
        "token": {"$literal": held["token"]},
        "owner": {"$literal": this_process()},
        "until": {"$add": [NOW, SECONDS * 1000]},
    }
    await rows.update_one({"_id": _WISH}, [{"$set": wanted}])


async def wished(database: Any) -> str:
    """``HOST PID`` of who asks the holder of now to let go. Raises PyMongoError."""
    rows = database[ROWS]
    asked = await rows.find_one({"_id": _WISH, "$expr": {"$gt": ["$until", NOW]}})
    if asked is None:
        return ""
    held = await rows.find_one({"_id": ID})
    if held is None or held["token"] != asked["token"]:
        return ""
    return f"{asked['owner']['host']} {asked['owner']['pid']}"
