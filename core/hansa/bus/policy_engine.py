"""Judging crossings and remembering why: decision ids, the decision log, shadow mode."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import orjson

from hansa.bus.decision_log import DecisionLog, Retention, of_stranger, same_decision
from hansa.bus.policy_dispatch import InstalledPolicy, PolicyAnswer, ask_policy
from hansa.environment import Clock, Random
from hansa.model.crossing import Crossing, EphemeralIn, EphemeralOut, EventIn, EventOut
from hansa.model.crossing_parts import named_by, source_of, weight_of
from hansa.model.lru import LruCache
from hansa.model.verdict import ALLOW, Action, Verdict, narrowed, strictest
from hansa.pacing.fair_turns import FairTurns
from hansa.pacing.loop_budget import LoopBudget
from hansa.store.base import CompareAndSwap, Conflict, Put, ScopedStore, Write

#: Refusals of the same peer for the same reasons within this time (ms) share one decision, so that a peer
#: that hammers at the door cannot fill the disk.
_SAME_DECISION = 60_000
#: Times that a number is taken while other processes take it.
_TRIES = 8
_REMEMBERED = 1024
_POLICIES = "policies"
#: Crossings that weigh more (``weight_of``) are judged one after the other: policies may take threads for
#: them.
_HEAVY = 2048
#: The digest of no policy at all.
_NOBODY = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedCrossing:
    """A merged verdict and the row that explains it (none for a plain ALLOW)."""

    verdict: Verdict
    writes: tuple[Write, ...] = ()


@dataclass(slots=True)
class _RecentVerdict:
    """A decision that others share; ``writes`` until they are known to be committed."""

    at: int
    decision: str
    writes: tuple[Write, ...]


#: Fields of a crossing whose strings are a user's words, and those that are looked at through other names.
_NOT_KEPT = frozenset({"texts", "name", "address", "account", "view", "content", "facts", "link"})
_LISTED = 100
_LONGEST = 300


def crossing_facts(crossing: Crossing) -> dict[str, Any]:
    """Returns the facts of a crossing that explain a decision to a person. They never include the text of a
    message.
    """
    kept: dict[str, Any] = {"crossing": type(crossing).__name__}
    if isinstance(crossing, EventIn | EventOut | EphemeralIn | EphemeralOut):
        kept |= {"link": crossing.link.id[:_LONGEST], "room": crossing.link.room}
        kept["room_servers"] = _to_json_value(crossing.view.servers())
    if isinstance(crossing, EventIn | EventOut):
        kept |= {"kind": crossing.content.kind.value, "sender_server": crossing.facts.sender_server}
    for field in fields(crossing):
        if field.name not in _NOT_KEPT:
            kept["room_servers" if field.name == "servers" else field.name] = _to_json_value(
                getattr(crossing, field.name)
            )
    return kept


def _to_json_value(value: Any) -> Any:
    match value:
        case bool() | int():
            return value
        case frozenset():
            return [_to_json_value(each) for each in heapq.nsmallest(_LISTED, value)]
        case tuple():
            return [_to_json_value(each) for each in value[:_LISTED]]
        case _:
            return str(value)[:_LONGEST]


def _reasons_to_json(verdict: Verdict) -> list[dict[str, str]]:
    return [
        {"code": r.code, "policy": r.policy, "rule": r.rule, "text": r.text, "admin_text": r.admin_text}
        for r in verdict.reasons
    ]


class PolicyEngine:
    """Asks every policy, merges, narrows, and keeps what was not a plain ALLOW."""

    def __init__(
        self,
        store: ScopedStore,
        clock: Clock,
        random: Random,
        policies: Sequence[InstalledPolicy] = (),
        *,
        retention: Retention | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._policies = tuple(policies)
        self._recent: LruCache[tuple[Any, ...], _RecentVerdict] = LruCache(_REMEMBERED)
        #: Those of them whose rows are not known to be committed, by decision.
        self._unwritten: LruCache[str, _RecentVerdict] = LruCache(_REMEMBERED)
        self.kept = DecisionLog(store, clock, random, retention or Retention())
        #: The share of a round of the event loop that judging, with its preparation, takes.
        self.budget = LoopBudget()
        self._heavy = FairTurns()
        #: The number of the policies that judge now. It rises with every change of them, also while nothing
        #: ran; 0 where there has never been one. A verdict belongs to the generation that gave it.
        self.generation = 0

    @property
    def policies(self) -> tuple[InstalledPolicy, ...]:
        """The installed policies, in no meaningful order."""
        return self._policies

    async def adopt(self, policies: Sequence[InstalledPolicy], digest: str, *, restart: bool = False) -> None:
        """Take policies of a configuration with this digest, under a durable generation. A ``restart`` with
        the digest of last time goes on with the generation of last time.
        """
        number = await self._take_generation(digest, again=bool(policies) and not restart)
        self._policies, self.generation = tuple(policies), number
        self._recent.clear()

    async def _take_generation(self, digest: str, *, again: bool) -> int:
        """The generation of a digest: that of last time, or the next one. ``again``: the next one anyway."""
        for attempt in range(_TRIES):
            row = await self._store.get("generation", (_POLICIES,))
            number, before = orjson.loads(row.body) if row else (0, _NOBODY)
            if digest == before and not again:
                return int(number)
            body = orjson.dumps([number + 1, digest])
            try:
                await self._store.commit(
                    [CompareAndSwap("generation", (_POLICIES,), row.body if row else None, body)]
                )
            except Conflict:  # another process took the number
                if attempt == _TRIES - 1:
                    raise
                continue
            break
        return int(number) + 1

    def replace(self, policies: Sequence[InstalledPolicy]) -> None:
        """Take other policies until the next start."""
        self._policies = tuple(policies)
        self.generation += 1
        self._recent.clear()

    async def judge(self, crossing: Crossing) -> JudgedCrossing:
        """The merged verdict and the row to commit with what it decides."""
        if not self._policies:
            return JudgedCrossing(verdict=ALLOW)
        answers = await self._ask_policies(crossing)
        enforced = strictest(a.verdict for a in answers if not a.shadow)
        would = strictest(a.verdict for a in answers if a.shadow)
        if enforced.action is Action.ALLOW and would.action is Action.ALLOW:
            return JudgedCrossing(verdict=ALLOW)
        enforced, would = (
            narrowed(enforced, crossing.allowed_actions),
            narrowed(would, crossing.allowed_actions),
        )
        if enforced.action is Action.ALLOW and would.action is Action.ALLOW:  # what nobody can be kept from
            return JudgedCrossing(verdict=ALLOW)
        return self._record_judgement(crossing, answers, enforced, would)

    async def judge_and_store(self, crossing: Crossing) -> Verdict:
        """The merged verdict, its row committed already."""
        judgement = await self.judge(crossing)
        if judgement.writes:
            await self._store.commit(judgement.writes, durability="lazy")
            self.committed(judgement.writes)
        return judgement.verdict

    def committed(self, writes: Sequence[Write]) -> None:
        """Notes that the rows of some judgements are stored. Until then each event that the same decision
        refuses also gets its row to write: a failed commit leaves no id that explains nothing.
        """
        for write in writes if self._unwritten else ():
            known = self._unwritten.pop(str(write.key[0])) if isinstance(write, Put) else None
            if known is not None:
                known.writes = ()

    async def judge_unrecorded(self, crossing: Crossing) -> Verdict:
        """The merged verdict of a question that nothing depends on; nothing is kept of it."""
        verdicts = await self._ask_policies(crossing)
        return narrowed(strictest(a.verdict for a in verdicts if not a.shadow), crossing.allowed_actions)

    async def _ask_policies(self, crossing: Crossing) -> list[PolicyAnswer]:
        """Asks each policy, in a round of the event loop that has room for it."""
        weight = weight_of(crossing)
        if weight > _HEAVY:
            async with self._heavy.of(*source_of(crossing)):
                return await self._in_turn(crossing, weight)
        return await self._in_turn(crossing, weight)

    async def _in_turn(self, crossing: Crossing, weight: int) -> list[PolicyAnswer]:
        answers = []
        for installed in self._policies:
            await self.budget.enter()
            self.budget.spend(weight + named_by(crossing))
            answers.append(await ask_policy(installed, crossing))
        return answers

    async def explain(self, decision: str) -> dict[str, Any]:
        """Returns the decision with an id: rule, facts, verdict. Raises LocalProtocolError if the id is
        unknown.
        """
        return await self.kept.explain(decision)

    async def log(self, limit: int) -> list[dict[str, Any]]:
        """The newest, oldest first: at most ``limit`` about acts, and of strangers a quarter of that."""
        return await self.kept.newest(limit)

    def _record_judgement(
        self, crossing: Crossing, answers: Sequence[PolicyAnswer], enforced: Verdict, would: Verdict
    ) -> JudgedCrossing:
        now, facts = self._clock.now(), crossing_facts(crossing)
        same = same_decision(facts, (enforced.reasons, would.reasons))
        # An event has a decision of its own, but one who goes on too fast has one for all of them.
        once = of_stranger(crossing) or (
            isinstance(crossing, EventIn | EventOut) and not enforced.retry_after
        )
        known = None if once else self._recent.get(same)
        if known is not None and now - known.at < _SAME_DECISION:
            return JudgedCrossing(verdict=self._public_verdict(enforced, known.decision), writes=known.writes)
        body = {
            "mode": "enforce" if enforced.action is not Action.ALLOW else "shadow",
            "action": enforced.action.name.lower(),
            "would": would.action.name.lower(),
            "facts": facts,
            "reasons": _reasons_to_json(enforced),
            "would_reasons": _reasons_to_json(would),
            "failed": {a.name: a.failed for a in answers if a.failed},
            "generation": self.generation,
        }
        decision, writes = self.kept.note(crossing, body)
        if not once:
            recent = _RecentVerdict(now, decision, writes)
            self._recent.put(same, recent)
            self._unwritten.put(decision, recent)
        return JudgedCrossing(verdict=self._public_verdict(enforced, decision), writes=writes)

    @staticmethod
    def _public_verdict(enforced: Verdict, decision: str) -> Verdict:
        return ALLOW if enforced.action is Action.ALLOW else replace(enforced, decision=decision)
