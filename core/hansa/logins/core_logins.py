"""The logins as a whole: who may log in where, the flow in a chat or a form, and the end of a login."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Protocol

from hansa.api.contracts import Network, TellsPeople
from hansa.api.logins import AccountLogin, AskFields, LoginDone, LoginStep, LogsIn, ProvesPeople
from hansa.bus.policy_engine import PolicyEngine
from hansa.bus.rooms import Rooms
from hansa.environment import Environment
from hansa.logins.flows import (
    FLOW_TTL_S,
    MAX_FIELDS,
    LoginFlows,
    LoginRefused,
    OpenFlow,
    require_answer,
)
from hansa.logins.rows import LoginRows
from hansa.model.chat_commands import CommandSettings
from hansa.model.crossing import Login, PeerConnect
from hansa.model.events import Link
from hansa.model.printable import printable
from hansa.model.ref import NativeId
from hansa.pacing.store_retry import Work
from hansa.pacing.token_buckets import TokenBuckets
from hansa.store.base import Conflict

#: The path of forms on the public port.
FORM_PATH = "/_hansa/login"
#: Logins that one person, and the people of one server, may begin: a second, and at once.
_PERSON_RATE, _PERSON_BURST, _SERVER_RATE, _SERVER_BURST = 1 / 60, 3, 0.2, 20
#: Seconds that a network has for a step, and to take or drop a login.
_STEP_TIMEOUT_S, _CHANGE_TIMEOUT_S = 25.0, 10.0
#: Characters of an account, bytes of a secret, characters of a network's words.
_MAX_ACCOUNT, _MAX_SECRET, _MAX_TEXT = 255, 4096, 500
_FAULT = "The login failed by a fault of this server. Its operator finds the reason in the log."


class LoginHost(Protocol):
    """The parts of the running application that logins use."""

    rooms: Rooms
    decisions: PolicyEngine

    @property
    def seams(self) -> Environment:
        """Clock and randomness."""
        ...

    def network(self, network: str) -> Network | None:
        """The open network of an id."""
        ...

    def server_of(self, network: str, user: str) -> str:
        """The server of a user, by the network's own rule."""
        ...

    def spawn(self, work: Work, name: str) -> object:
        """Run a task of the core's own."""
        ...

    def count(self, name: str, **labels: str) -> None:
        """Add one to a counter."""
        ...


class CoreLogins:
    """The logins of all people. ``public_url`` is the beginning of links to forms, empty for none."""

    def __init__(self, settings: CommandSettings, rows: LoginRows, host: LoginHost, public_url: str) -> None:
        self.flows = LoginFlows(host.seams)
        self._settings = settings
        self.rows = rows
        self._host = host
        self._public_url = public_url.rstrip("/")
        clock = host.seams.clock
        self._of_person = TokenBuckets(clock, _PERSON_RATE, _PERSON_BURST)
        self._of_server = TokenBuckets(clock, _SERVER_RATE, _SERVER_BURST)
        self._log = logging.getLogger("hansa.logins")

    def network(self, network: str) -> Network | None:
        """The open network of an id."""
        return self._host.network(network)

    async def begin(self, person: NativeId, network: str, *, direct: bool) -> str:
        """Begins the login of a person; the first question, or a link. ``direct``: they wrote to the bridge
        itself, not in a room. Raises ``LoginRefused``.
        """
        instance = self._require_network(network)
        proves = self._host.network(person.network)
        if (
            person.network == network
            or not isinstance(proves, ProvesPeople)
            or not proves.is_proven_person(person.id)
        ):
            raise self._refuse("refused", f"{person.network} does not prove who you are.")
        server = self._host.server_of(person.network, person.id)
        if self._of_person.take(str(person)) or self._of_server.take(f"{person.network}:{server}"):
            raise self._refuse("rate", "You have begun too many logins. Try again in a few minutes.")
        account = await self.rows.find_account(network, person)
        if account is not None:
            text = f"You are logged in as {account}. Write {self._settings.prefix} logout {network} first."
            raise self._refuse("refused", text)
        await self._require_allowed(network, instance, person)
        opened = self.flows.add(person, network, server, instance.begin_login(person))
        step = await self.advance(opened, {})
        if isinstance(step, str):
            return step
        if direct and proves.has_private_chat(person.id):
            return self._ask(opened)
        if not self._public_url:
            self.flows.end(person)
            text = "A login needs a form on the public port here, and [media] public_url is not set."
            raise self._refuse("refused", text)
        return (
            f"Open this link within {FLOW_TTL_S / 60:g} minutes and answer there: "
            f"{self.link_form(opened)}\nIt works once. Give it to nobody, and write no password here."
        )

    def link_form(self, opened: OpenFlow) -> str:
        """The address of a form for the present step."""
        return f"{self._public_url}{FORM_PATH}/{self.flows.make_token(opened)}"

    def is_answer(self, person: NativeId, text: str) -> bool:
        """True if what a person writes to the bridge itself answers a login: nothing else may read it."""
        if text.split(maxsplit=1)[:1] == [self._settings.prefix]:
            return False
        return self.flows.find(person) is not None or self.flows.is_late(person)

    async def answer(self, person: NativeId, text: str) -> str:
        """Takes an answer of a chat; the next question, or what became of the login."""
        opened = self.flows.find(person)
        if opened is None:
            self.flows.forget_late(person)
            return f"The login has ended. Begin again with {self._settings.prefix} login NETWORK."
        if opened.digest:
            return "Answer in the form that the link opens. Your text was not read."
        asked = opened.next_field
        if asked is None:
            return "The login is under way."
        try:
            opened.answers[asked.name] = require_answer(text)
        except LoginRefused as refused:
            return f"{refused} {self._ask(opened)}"
        if opened.next_field is not None:
            return self._ask(opened)
        step = await self.advance(opened, dict(opened.answers))
        return step if isinstance(step, str) else self._ask(opened)

    async def advance(self, opened: OpenFlow, answers: Mapping[str, str]) -> AskFields | str:
        """Gives the answers to the network. Returns the next step, or what became of the login."""
        step = await self._next_step(opened, answers)
        if not self.flows.is_current(opened):
            return "The login has ended: another one was begun, or it took too long."
        if isinstance(step, AskFields) and 0 < len(step.fields) <= MAX_FIELDS:
            opened.step = step
            opened.answers.clear()
            return step
        self.flows.end(opened.person)
        if isinstance(step, LoginDone):
            return await self._finish(opened, step)
        self._host.count("logins", network=opened.network, result="failed")
        return _FAULT if step is None or isinstance(step, AskFields) else printable(step.text, _MAX_TEXT)

    async def _next_step(self, opened: OpenFlow, answers: Mapping[str, str]) -> LoginStep | None:
        """None where the network failed. What it raises may have a secret in its text."""
        try:
            async with asyncio.timeout(_STEP_TIMEOUT_S):
                return await opened.flow.next_step(answers)
        except Exception as error:  # noqa: BLE001  # a network's fault is an answer to the person
            self._log.warning(  # no traceback: it shows values
                "a step of the login of %s on %s failed: %s",
                opened.person,
                opened.network,
                type(error).__name__,
            )
            return None

    async def _finish(self, opened: OpenFlow, done: LoginDone) -> str:
        network, person = opened.network, opened.person
        if not 0 < len(done.account) <= _MAX_ACCOUNT or len(done.secret.encode()) > _MAX_SECRET:
            self._log.error("%s gives an account or a secret that is empty or too long", network)
            return _FAULT
        try:
            await self._require_allowed(network, self._require_network(network), person, done.account)
            await self.rows.insert(
                network, AccountLogin(person=person, account=done.account, secret=done.secret)
            )
        except LoginRefused as refused:
            return str(refused)
        except Conflict:
            return str(self._refuse("taken", f"{done.account} belongs to another person here already."))
        self._host.count("logins", network=network, result="done")
        login = AccountLogin(person=person, account=done.account, secret=done.secret)

        async def use() -> None:
            await self._change(network, "take", person, login)

        self._host.spawn(use, f"login of {person}")
        return f"You are logged in to {network} as {done.account}."

    async def end(self, person: NativeId, network: str) -> str:
        """Logs a person out; the answer. Raises ``LoginRefused``."""
        opened = self.flows.find(person)
        if opened is not None and opened.network == network:
            self.flows.end(person)
        account = await self.rows.remove(network, person)
        if account is None:
            raise LoginRefused(f"You are not logged in to {printable(network, 40)}.")
        await self._change(network, "drop", person)
        return f"You are logged out of {network}. The password of {account} is removed here."

    async def end_all(self, person: NativeId) -> None:
        """Logs a person out of every network."""
        self.flows.end(person)
        for network in await self.rows.list_networks(person):
            await self.rows.remove(network, person)
            await self._change(network, "drop", person)

    async def end_refused(self, network: str, person: NativeId, reason: str) -> None:
        """Ends a login that the server of its account refuses now, and tells the person."""
        account = await self.rows.remove(network, person)
        if account is None:
            await self._change(network, "drop", person)
            return
        self._host.count("logins", network=network, result="ended")
        self._log.warning("the login of %s on %s has ended: %s", person, network, reason)
        await self._change(network, "drop", person)
        text = (
            f"Your login to {network} as {account} has ended: {printable(reason, _MAX_TEXT)}. "
            f"Log in again with {self._settings.prefix} login {network}."
        )
        await self._tell(person, text)

    async def list_logins(self, network: str) -> list[AccountLogin]:
        """The logins of a network that the policies of now allow."""
        instance = self._host.network(network)
        if network not in self._settings.logins or not isinstance(instance, LogsIn):
            return []
        allowed = list[AccountLogin]()
        for login in await self.rows.list_logins(network):
            try:
                await self._require_allowed(network, instance, login.person, login.account, again=True)
            except LoginRefused as refused:
                self._log.warning("%s stays logged out of %s: %s", login.person, network, refused)
            else:
                allowed.append(login)
        return allowed

    def _require_network(self, network: str) -> LogsIn:
        instance = self._host.network(network)
        allowed = self._settings.enabled and network in self._settings.logins and self.rows.has_key
        if not allowed or not isinstance(instance, LogsIn):
            raise self._refuse("refused", f"Nobody can log in to {printable(network, 40)} here.")
        return instance

    async def _require_allowed(
        self, network: str, instance: LogsIn, person: NativeId, account: str = "", *, again: bool = False
    ) -> None:
        """Raises ``LoginRefused`` where a policy denies a login."""
        if not self._host.decisions.policies:
            return
        server = instance.login_server
        home = self._host.server_of(person.network, person.id)
        for crossing in (
            PeerConnect(network=network, server=server, outbound=True),
            Login(
                network=network, server=server, user=person, user_server=home, account=account, again=again
            ),
        ):
            verdict = await self._host.decisions.judge_and_store(crossing)
            if not verdict.allowed:
                raise self._refuse("denied", verdict.text)

    def _refuse(self, result: str, text: str) -> LoginRefused:
        self._host.count("logins", network="", result=result)
        return LoginRefused(text)

    def _ask(self, opened: OpenFlow) -> str:
        """The next question of a chat. The text of the step is before the first one."""
        asked, step = opened.next_field, opened.step
        assert asked is not None
        assert step is not None
        before = f"{printable(step.text, _MAX_TEXT)} " if step.text and asked == step.fields[0] else ""
        secret = " It is not shown to others, and your own client may keep it." if asked.secret else ""
        return f"{before}Write this here: {printable(asked.label, 100)}.{secret}"

    async def _change(
        self, network: str, act: str, person: NativeId, login: AccountLogin | None = None
    ) -> None:
        """Has the network take or drop a login. A failure is logged: the row says what is so."""
        instance = self._host.network(network)
        if not isinstance(instance, LogsIn):
            return
        try:
            async with asyncio.timeout(_CHANGE_TIMEOUT_S):
                await (instance.use_login(login) if login is not None else instance.drop_login(person))
        except Exception as error:  # noqa: BLE001  # a network's fault; its text may have a secret
            name = type(error).__name__
            self._log.error("%s could not %s the login of %s: %s", network, act, person, name)

    async def _tell(self, person: NativeId, text: str) -> None:
        """Tells a person in the smallest of their rooms."""
        network = self._host.network(person.network)
        links = list[tuple[int, Link]]()
        for room in self._host.rooms.joined_by(person):
            link = room.link_of(person.network)
            if link is not None:
                links.append((sum(room.view.joined_servers.values()), link))
        if not links or not isinstance(network, TellsPeople):
            self._host.count("logins", network="", result="untold")
            return
        _, link = min(links, key=lambda one: one[0])
        try:
            async with asyncio.timeout(_CHANGE_TIMEOUT_S):
                await network.tell_person(link, person.id, text)
        except Exception:  # noqa: BLE001  # a network's fault, and it is logged that the login ended
            self._log.exception("%s could not be told that their login has ended", person)
