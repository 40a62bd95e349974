"""Asking one policy: it is awaited under its time-out, and its exception never reaches another one. No order
of policies changes a verdict.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from hansa.api.contracts import Policy
from hansa.model.crossing import Crossing
from hansa.model.verdict import ALLOW, Action, Reason, Verdict

#: The reason of a policy that could not answer.
ENGINE_ERROR = "GOV_ENGINE_ERROR"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledPolicy:
    """One configured policy: what to ask, and what counts when it does not answer."""

    name: str
    policy: Policy
    on_error: Action = Action.DENY
    shadow: bool = False
    timeout: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyAnswer:
    """The verdict of one policy about one crossing."""

    name: str
    verdict: Verdict
    shadow: bool
    failed: str = ""


async def ask_policy(installed: InstalledPolicy, crossing: Crossing) -> PolicyAnswer:
    """Returns one policy's answer. An exception, a time-out, a cancellation inside it or an answer that is
    not a ``Verdict`` counts as its ``on_error``.
    """
    failed = ""
    verdict: object = None
    try:
        async with asyncio.timeout(installed.timeout) as bound:
            verdict = await installed.policy.check(crossing)
        if bound.expired():  # it swallowed its cancellation: what it says now is too late
            failed = f"no answer within {installed.timeout:g} s"
    except TimeoutError:
        failed = f"no answer within {installed.timeout:g} s"
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        failed = "cancelled itself"
    except Exception as error:  # noqa: BLE001  # a policy's fault of any kind is its on_error, never a hole
        failed = f"{type(error).__name__}: {error}"
    if verdict is None and not failed:
        return PolicyAnswer(name=installed.name, verdict=ALLOW, shadow=installed.shadow)
    if not failed and not isinstance(verdict, Verdict):
        failed = f"answered {type(verdict).__name__} instead of a Verdict"
    if failed:
        reason = Reason(
            code=ENGINE_ERROR,
            policy=installed.name,
            text="a policy could not answer",
            admin_text=failed,
        )
        verdict = Verdict(installed.on_error, (reason,))
    assert isinstance(verdict, Verdict)
    return PolicyAnswer(name=installed.name, verdict=verdict, shadow=installed.shadow, failed=failed)
