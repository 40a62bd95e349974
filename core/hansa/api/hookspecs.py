"""Every hook, and the markers. A hook is either ``def`` (registration, no I/O) or ``async def`` (run time);
an implementation of the other colour is refused at load.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from hansa.api.context import NetworkContext, PluginContext
    from hansa.api.contracts import Network, Observer, Policy
    from hansa.http.router import Router
    from hansa.model.commands import Commands
    from hansa.model.crossing import Crossing
    from hansa.model.events import Delivery, Event
    from hansa.model.verdict import Verdict

PROJECT = "hansa"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Hooks:
    """The specifications, in the order of a plugin's life."""

    @hookspec
    def open_network(self, ctx: NetworkContext) -> Network:  # type: ignore[empty-body]
        """Make the network of one ``[networks.<id>]`` table. No I/O here; that is ``start``'s.

        :param ctx: everything the network may use; ``ctx.config`` is the validated table.
        """

    @hookspec
    def open_policy(self, ctx: PluginContext) -> Policy:  # type: ignore[empty-body]
        """Make the policy of one ``[policies.<name>]`` table. No I/O here.

        :param ctx: everything the policy may use; ``ctx.config`` is the validated table.
        """

    @hookspec
    def open_observer(self, ctx: PluginContext) -> Observer:  # type: ignore[empty-body]
        """Make the durable observer of one ``[observers.<name>]`` table. No I/O here.

        :param ctx: everything the observer may use; ``ctx.config`` is the validated table.
        """

    @hookspec
    def register_routes(self, router: Router) -> None:
        """Add HTTP routes to the public listeners. Called once per opened network, after ``open_network``,
        on the object that ``open_network`` returned.

        :param router: takes ``add(method, pattern, endpoint, admit=...)``; bound to the network's name.
        """

    @hookspec
    def register_commands(self, commands: Commands) -> None:
        """Add commands under ``hansa PLUGIN``. Implemented by the plugin's module, which is imported for it
        alone: nothing heavy. The network answers them as ``hansa.HasAdminCommands``.

        :param commands: takes ``add(Command(...))``.
        """

    @hookspec
    async def check(self, crossing: Crossing) -> Verdict | None:
        """Judge one crossing; None has no opinion. Implemented by what ``open_policy`` returned. Every
        policy is asked; an exception, a time-out or any other answer counts as the policy's ``on_error``.

        :param crossing: one of the closed union in ``hansa.model.crossing``.
        """

    @hookspec
    async def check_password(self, user: str, password: str) -> bool | None:
        """Checks a user's password, as a directory does; None has no opinion. The first answer counts, and
        without one the network's own accounts decide. A plugin that raises has no opinion either. Implemented
        by what ``open_policy`` or ``open_network`` returned.

        :param user: a native user id.
        :param password: as it was given; it is never kept.
        """

    @hookspec
    async def event_committed(self, event: Event) -> None:
        """An event stands in the log. For observers: an exception is logged and changes nothing. Events of a
        time when the process is down are never told here; ``hansa.Observer`` is told of them.

        :param event: as committed, with its ``seq``.
        """

    @hookspec
    async def delivery_failed(self, delivery: Delivery, error: str) -> None:
        """A delivery went to the dead letters after its network refused it for good. For observers.

        :param delivery: the delivery that failed.
        :param error: the network's reason.
        """
