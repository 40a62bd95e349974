"""Verdicts and how they merge: by strictness, never by order."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from enum import IntEnum


class Action(IntEnum):
    """The actions of a verdict about a crossing, from mildest to strictest."""

    ALLOW = 0
    REWRITE = 1
    WITHHOLD = 2
    HOLD = 3
    DENY = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why. ``text`` is for the person concerned, ``admin_text`` names rules and facts.

    ``code`` is stable and upper case (``GOV_CONTENT``); ``policy`` is the configured policy's name.
    """

    code: str
    policy: str = ""
    rule: str = ""
    text: str = ""
    admin_text: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to one crossing. ``decision`` is the id under which the core keeps it, empty for a plain
    ALLOW. ``retry_after`` is in seconds and only says when a rate rule would allow again.
    """

    action: Action = Action.ALLOW
    reasons: tuple[Reason, ...] = ()
    decision: str = ""
    retry_after: float = 0.0

    @property
    def allowed(self) -> bool:
        """True if the crossing happens as it is."""
        return self.action is Action.ALLOW

    @property
    def text(self) -> str:
        """The text for the person concerned, with the decision id."""
        said = next((r.text for r in self.reasons if r.text), "refused by policy")
        return f"{said} [{self.decision}]" if self.decision else said


ALLOW = Verdict()


def decision_fields(decision: str) -> dict[str, str]:
    """The field of an error's body that names a policy's decision, if one made it."""
    return {"dev.hansa.decision": decision} if decision else {}


def strictest(verdicts: Iterable[Verdict]) -> Verdict:
    """Merge: the strictest action wins, all reasons of non-allowing verdicts are kept, sorted so that the
    order of policies cannot be seen in the outcome.
    """
    worst, reasons, wait = Action.ALLOW, set[Reason](), 0.0
    for verdict in verdicts:
        worst = max(worst, verdict.action)
        wait = max(wait, verdict.retry_after)
        reasons.update(verdict.reasons)
    if worst is Action.ALLOW and not reasons:
        return ALLOW
    ordered = sorted(reasons, key=lambda r: (r.policy, r.code, r.rule, r.text, r.admin_text))
    return Verdict(worst, tuple(ordered), retry_after=wait)


def narrowed(verdict: Verdict, possible: Collection[Action]) -> Verdict:
    """A crossing lists the actions it can do; one it cannot counts as the next stricter it has, or else
    as its strictest.
    """
    if verdict.action in possible:
        return verdict
    stricter = [a for a in sorted(possible) if a > verdict.action]
    return replace(verdict, action=stricter[0] if stricter else max(possible))
