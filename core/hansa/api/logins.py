"""Logins: a person of one network speaks on another one as an account of their own there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from hansa.model.ref import NativeId


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginField:
    """A question of a login. ``name`` (``[a-z_]+``) names its answer, ``label`` is shown to the person. The
    answer to a ``secret`` one is hidden while it is typed, and kept nowhere but in ``LoginDone.secret``.
    """

    name: str
    label: str
    secret: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AskFields:
    """A step that asks for ``fields``, eight at most. ``text`` says what they are for."""

    fields: tuple[LoginField, ...]
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginDone:
    """The last step: the person has proven that ``account`` is theirs. ``account`` is its one spelling, 255
    characters at most: it belongs to one person. ``secret`` opens it again after a restart, 4,096 bytes at
    most; the core encrypts it.
    """

    account: str
    secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginFailed:
    """The last step: there is no login, for the reason in ``text``, which names no secret."""

    text: str


LoginStep = AskFields | LoginDone | LoginFailed


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountLogin:
    """A person of another network, the account that is theirs on this one, and what opens it."""

    person: NativeId
    account: str
    secret: str = field(default="", repr=False)


class LoginFlow(Protocol):
    """One attempt of one person to log in."""

    async def next_step(self, answers: Mapping[str, str]) -> LoginStep:
        """The first step, where there are no ``answers`` yet, or the one after the fields of ``AskFields``
        were answered: each by name, in 1 to 500 printable characters. Answers within 25 s. An exception ends
        the login; its type alone is logged, since its text may hold a secret.
        """
        ...


@runtime_checkable
class LogsIn(Protocol):
    """A network on which people of other networks may have accounts of their own. An operator allows it in
    ``[commands] logins``; the core runs the flow, keeps the account and its secret, and asks the policies.
    """

    @property
    def login_server(self) -> str:
        """The name of the server of the accounts, which ``PeerConnect`` and ``Login`` are asked about."""
        ...

    def begin_login(self, person: NativeId) -> LoginFlow:
        """The flow of a person. It connects to nobody before it has answers."""
        ...

    async def use_login(self, login: AccountLogin) -> None:
        """A login is stored: from now on the person speaks by this account alone. At a start,
        ``NetworkContext.list_logins`` has all of them. An account that the server refuses later is ended by
        ``NetworkContext.end_login``: the network never speaks for the person by another account instead.
        """
        ...

    async def drop_login(self, person: NativeId) -> None:
        """A login is removed: its connections end, and its secret is forgotten."""
        ...


@runtime_checkable
class ProvesPeople(Protocol):
    """A network that proves who its people are. Only they can log in to a network that ``LogsIn``:
    elsewhere, the next person with the same name would speak as their account.
    """

    def is_proven_person(self, user: str) -> bool:
        """True if nobody else can ever act under this id. A name that the next person may take, as a nick,
        proves nothing.
        """
        ...

    def has_private_chat(self, user: str) -> bool:
        """True if what a person writes to the bridge itself (``NetworkContext.answer_command``) comes to this
        server encrypted or within its machine, and stands in the history of no room: then a secret may be
        asked for in the chat. Otherwise the person gets a link to a form. Pure.
        """
        ...
