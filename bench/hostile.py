"""The worst inputs, without policies and with them: memory over what there was, and how long others wait."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from hostile.cases import CASES, Case
from hostile.judged import JUDGED, JudgedScene
from hostile.meter import Cost
from hostile.scene import Scene
from peers.ca import PrivateCA

from bench.comparison import Pairs, say


async def hostile(folder: Path, ca: PrivateCA, runs: int, *, synapse: bool) -> Pairs:
    """Of Hansa alone: ``synapse`` changes nothing. Figures are medians of ``runs``."""
    del synapse
    found = await _costs(Scene(folder / "hostile", ca), CASES, runs)
    found += await _costs(JudgedScene(folder / "judged", ca), JUDGED, runs)
    over = [case.name for case, cost in found if cost.mib > case.mib or cost.held > case.held]
    pairs = [(case.name, f"{cost.mib:.1f} MiB, held {cost.held:.1f} ms") for case, cost in found]
    most = max(cost.mib for _, cost in found)
    longest = max(cost.held for _, cost in found)
    return [
        *pairs,
        (f"{len(found)} inputs, at most", f"{most:.1f} MiB, held {longest:.1f} ms"),
        ("over their bounds", f"{len(over)} of {len(found)}{': ' if over else ''}{', '.join(over)}"),
    ]


async def _costs(scene: Scene, cases: Sequence[Case], runs: int) -> list[tuple[Case, Cost]]:
    """Returns the cost of each case for one Hansa, which is well afterwards."""
    found: list[tuple[Case, Cost]] = []
    async with scene.cleanup:
        await scene.start()
        for number, case in enumerate(cases, 1):
            costs = []
            for _ in range(runs):
                async with scene.meter.measured() as cost:
                    await case.run(scene)
                costs.append(cost)
            mib = statistics.median(one.mib for one in costs)
            held = statistics.median(one.held for one in costs)
            found.append((case, Cost(max(0.0, mib), max(0.0, held))))
            if number % 10 == 0:
                say(f"{number} of {len(cases)} inputs")
        await scene.healthy()
    return found
