"""Asks the policies about an operator's change before it is made.

Reading is never asked about, and neither are the commands that read and replace policies: no policy can lock
an operator out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

from hansa.bus.policy_engine import PolicyEngine
from hansa.environment import Request
from hansa.model.commands import Command, Commands
from hansa.model.crossing import AdminChange
from hansa.model.errors import RemoteProtocolError

#: An endpoint: a request and its JSON to an answer.
Work = Callable[[Request, Any], Awaitable[Any]]

#: Requests that send something and change nothing, read the policies again, or end a process as a signal
#: does.
FREE = frozenset({"/reload", "/policy/test", "/drain", "/promote"})
_OPERATE = "/operate/{plugin}"
#: The most that is kept of an argument's value (characters).
_VALUE = 200


class AdminGate:
    """``module_of`` finds a plugin's module by its name."""

    def __init__(self, decisions: PolicyEngine, module_of: Callable[[str], ModuleType]) -> None:
        self._decisions = decisions
        self._module_of = module_of

    def behind(self, method: str, pattern: str, work: Work) -> Work:
        """The same work, done once every policy was asked; as it is where it changes nothing."""
        if method != "POST" or pattern in FREE:
            return work

        async def asked(request: Request, body: Any) -> Any:
            change = self._admin_change(request, pattern, body) if self._decisions.policies else None
            if change is not None:
                verdict = await self._decisions.judge_and_store(change)
                if not verdict.allowed:
                    raise RemoteProtocolError(verdict.text, hint=403, code="policy")
            return await work(request, body)

        return asked

    def _admin_change(self, request: Request, pattern: str, body: Any) -> AdminChange | None:
        given = body if isinstance(body, dict) else {}
        command, secret = pattern.removeprefix("/").replace("/", " "), frozenset[str]()
        if pattern == _OPERATE:
            plugin, words = request.path["plugin"], str(given.get("words", ""))
            declared = self._declared_commands(plugin).get(words)
            if declared is not None and not declared.changes:
                return None
            named = declared.arguments if declared is not None else ()
            secret = frozenset(a.name.strip("-").replace("-", "_") for a in named if a.secret)
            command, arguments = f"{plugin} {words}", given.get("arguments")
            given = arguments if declared is not None and isinstance(arguments, dict) else {}
        shown = sorted((str(k), str(v)[:_VALUE]) for k, v in given.items() if k not in secret)
        return AdminChange(command=command, arguments=tuple(shown))

    def _declared_commands(self, plugin: str) -> dict[str, Command]:
        commands = Commands()
        register = getattr(self._module_of(plugin), "register_commands", None)
        if register is not None:
            register(commands)
        return commands.found
