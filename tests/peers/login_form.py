"""The form of a login, in a real Chromium."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from peers.require import require_browser

_SCRIPT = Path(__file__).parent / "js" / "form.mjs"


async def fill_form(url: str, **answers: str) -> dict[str, Any]:
    """Opens a form and sends the answers. Returns what the page said before (``form``) and after (``said``),
    its last ``url``, and what the browser ``refused`` of it.
    """
    folder, chromium = require_browser()
    environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    process = await asyncio.create_subprocess_exec(
        "node",
        str(_SCRIPT),
        str(folder),
        chromium,
        url,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=environment,
    )
    async with asyncio.timeout(90):
        shown, _ = await process.communicate(json.dumps(answers).encode())
    if process.returncode:
        raise RuntimeError(f"the browser ended with {process.returncode}")
    return dict(json.loads(shown))
