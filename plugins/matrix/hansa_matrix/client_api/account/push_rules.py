"""Push rules as clients read and write them. SPEC: client-server API, "Push Rules API"."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import lru_cache
from typing import Any

from hansa import Request

from hansa_matrix.client_api.account.account_data import PUSH_RULES, AccountData
from hansa_matrix.client_api.account.accounts import Requester
from hansa_matrix.client_api.http import Handler, RateLimited
from hansa_matrix.errors import matrix_error
from hansa_matrix.proto import ids
from hansa_matrix.proto.push_rules import (
    KINDS,
    MASTER,
    are_valid_actions,
    current_actions,
    default_rules,
    is_valid_rule,
)

_MAX_RULES = 500
#: The fields of a rule of each kind, beside its actions.
_PARTS = {"override": ("conditions",), "underride": ("conditions",), "content": ("pattern",)}
_Rules = dict[str, list[dict[str, Any]]]


class PushRuleEndpoints:
    """The rules of each person, kept as a whole once they change one."""

    def __init__(self, data: AccountData) -> None:
        self._data = data

    def routes(self) -> Mapping[tuple[str, str], Handler | RateLimited]:
        """See ``http.EndpointGroup.routes``."""
        one = "/v3/pushrules/global/{kind}/{rule}"
        return {
            ("GET", "/v3/pushrules"): self.get_all,
            ("GET", "/v3/pushrules/global"): self.all_global,
            ("GET", one): self.get_rule,
            ("PUT", one): self.put_rule,
            ("DELETE", one): self.delete_rule,
            ("GET", f"{one}/enabled"): self.get_enabled,
            ("PUT", f"{one}/enabled"): self.set_enabled,
            ("GET", f"{one}/actions"): self.get_actions,
            ("PUT", f"{one}/actions"): self.set_actions,
        }

    async def rules_of(self, user: str) -> _Rules:
        """Returns all rules of a user, which the caller must not change; newer default rules of the server
        are added.
        """
        kept = await self._data.get(user, "", PUSH_RULES)
        return _merge_rules(user, kept) if isinstance(kept, dict) else _default_rules_of(user)

    async def _change_rules(self, user: str, change: Callable[[_Rules], None]) -> None:
        """Stores a user's changed rules, whatever else changes them at the same time."""

        def change_content(kept: Any) -> dict[str, Any]:
            rules = _merge_rules(user, kept)
            change(rules)
            return {"global": rules}

        await self._data.change_value(user, "", PUSH_RULES, change_content)

    async def copy_room_rules(self, user: str, old: str, new: str) -> None:
        """Rules of one room become rules of the room after it too."""

        def copy_rule(rules: _Rules) -> None:
            for kind in ("override", "room"):
                listed = rules.get(kind, [])
                known = {rule["rule_id"] for rule in listed}
                found = next((at for at, rule in enumerate(listed) if rule["rule_id"] == old), None)
                if found is not None and new not in known and len(listed) < _MAX_RULES:
                    listed.insert(found, _is_of_room(listed[found], old, new))

        before = await self.rules_of(user)
        rules = deepcopy(before)
        copy_rule(rules)
        if rules != before:
            await self._change_rules(user, copy_rule)

    async def get_all(self, caller: Requester, _request: Request, _body: Any) -> Any:
        """``GET /pushrules/``."""
        return {"global": await self.rules_of(caller.user)}

    async def all_global(self, caller: Requester, _request: Request, _body: Any) -> Any:
        """``GET /pushrules/global/``."""
        return await self.rules_of(caller.user)

    async def get_rule(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``GET /pushrules/global/{kind}/{ruleId}``."""
        return _require_rule(await self.rules_of(caller.user), request)

    async def put_rule(self, caller: Requester, request: Request, body: Any) -> Any:
        """``PUT /pushrules/global/{kind}/{ruleId}``, before or after another."""
        kind, name = request.path["kind"], request.path["rule"]
        if (
            kind not in KINDS
            or name.startswith(".")
            or not ids.fits_255_bytes(name)
            or set(name) & set("/\\")
        ):
            why = "a rule has a kind, and a name that begins with no dot and has no slashes"
            raise matrix_error(400, "M_INVALID_PARAM", why)
        if not is_valid_rule(kind, body):
            raise matrix_error(400, "M_BAD_JSON", "the rule is not valid for this kind")
        wanted = _PARTS.get(kind, ())
        parts = {key: body.get(key, []) for key in wanted}
        actions = current_actions(body["actions"])

        def put_rule(rules: _Rules) -> None:
            listed = rules.setdefault(kind, [])
            before = next((at for at, rule in enumerate(listed) if rule["rule_id"] == name), None)
            if before is None and len(listed) >= _MAX_RULES:
                raise matrix_error(400, "M_TOO_LARGE", f"a kind has at most {_MAX_RULES} rules")
            rule = {
                "rule_id": name,
                "default": False,
                "enabled": listed.pop(before)["enabled"] if before is not None else True,
                "actions": actions,
                **parts,
            }
            listed.insert(self._insert_position(listed, request, before), rule)

        await self._change_rules(caller.user, put_rule)
        return {}

    @staticmethod
    def _insert_position(listed: list[dict[str, Any]], request: Request, was: int | None) -> int:
        """Where a rule goes: beside another, else where it ``was``, else before all others of people."""
        before, after = request.first("before"), request.first("after")
        names = [rule["rule_id"] for rule in listed]
        for name, more in ((before, 0), (after, 1)):
            if name and (name not in names or name.startswith(".")):
                raise matrix_error(400, "M_UNKNOWN", f"there is no rule {name[:80]!r} to place it beside")
            if name:
                return names.index(name) + more
        if was is not None:
            return was
        # The user's rules go before the server's, except for the master rule that turns all off.
        return 1 if names[:1] == [MASTER] else 0

    async def delete_rule(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``DELETE /pushrules/global/{kind}/{ruleId}``."""

        def delete_rule(rules: _Rules) -> None:
            rule = _require_rule(rules, request)
            if rule["default"]:
                raise matrix_error(
                    400, "M_INVALID_PARAM", "a rule of the server is switched off, not removed"
                )
            rules[request.path["kind"]].remove(rule)

        await self._change_rules(caller.user, delete_rule)
        return {}

    async def get_enabled(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``GET …/enabled``."""
        return {"enabled": _require_rule(await self.rules_of(caller.user), request)["enabled"]}

    async def set_enabled(self, caller: Requester, request: Request, body: Any) -> Any:
        """``PUT …/enabled``."""

        def set_enabled(rules: _Rules) -> None:
            rule = _require_rule(rules, request)
            if not isinstance(body.get("enabled"), bool):
                raise matrix_error(400, "M_BAD_JSON", "enabled is true or false")
            rule["enabled"] = body["enabled"]

        await self._change_rules(caller.user, set_enabled)
        return {}

    async def get_actions(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``GET …/actions``."""
        return {"actions": _require_rule(await self.rules_of(caller.user), request)["actions"]}

    async def set_actions(self, caller: Requester, request: Request, body: Any) -> Any:
        """``PUT …/actions``."""

        def set_actions(rules: _Rules) -> None:
            rule = _require_rule(rules, request)
            if not are_valid_actions(body.get("actions")):
                raise matrix_error(400, "M_BAD_JSON", "actions must be a list of actions")
            rule["actions"] = current_actions(body["actions"])

        await self._change_rules(caller.user, set_actions)
        return {}


@lru_cache(maxsize=500)
def _default_rules_of(user: str) -> _Rules:
    """Returns the rules of a user who never changed one."""
    return default_rules(user)


def _is_of_room(rule: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """A rule of one room, as it is of another."""
    copy = deepcopy(rule) | {"rule_id": new}
    for condition in copy.get("conditions", ()):
        if condition.get("key") == "room_id" and condition.get("pattern") == old:
            condition["pattern"] = new
    return copy


def _merge_rules(user: str, kept: Any) -> _Rules:
    """Returns the rules in a user's account data. The server's default rules are always the current ones, in
    their order and behind those of the user, except the master rule that turns all off; whether they are
    enabled, and their actions, are as the user set them.
    """
    rules = default_rules(user)
    if not isinstance(kept, dict):
        return rules
    given: _Rules = deepcopy(kept.get("global", kept))
    for kind, defaults in rules.items():
        listed = given.get(kind, [])
        changed = {rule["rule_id"]: rule for rule in listed if rule["default"]}
        for rule in defaults:
            mine = changed.get(rule["rule_id"], rule)
            rule |= {"enabled": mine["enabled"], "actions": current_actions(mine["actions"])}
        first = 1 if defaults and defaults[0]["rule_id"] == MASTER else 0
        own = [rule for rule in listed if not rule["default"]]
        for rule in own:
            rule["actions"] = current_actions(rule["actions"])
        rules[kind] = [*defaults[:first], *own, *defaults[first:]]
    return rules


def _require_rule(rules: _Rules, request: Request) -> dict[str, Any]:
    """The rule that a request names. Raises the error answer of one that is not there."""
    for rule in rules.get(request.path["kind"], ()):
        if rule["rule_id"] == request.path["rule"]:
            return rule
    raise matrix_error(404, "M_NOT_FOUND", "there is no such rule")
