"""Why the authorisation rules refuse an event. SPEC: room versions 1 to 12, "Authorization rules"."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AuthRejection:
    """A refusal: ``rule`` is the number and name of the rule, ``reason`` says it in words.

    Rules are numbered as in room version 12, where 10 and 11 lack rule 2 and count one less from there on:
    ``5.join.banned`` is rule 5.3.3 of version 12 and rule 4.3.3 of versions 10 and 11.
    """

    rule: str
    reason: str
