"""The logins under way: one for each person, in memory, for ten minutes."""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from hansa.api.logins import AskFields, LoginField, LoginFlow
from hansa.environment import Environment
from hansa.model.errors import HansaError
from hansa.model.lru import LruCache
from hansa.model.ref import NativeId

#: Seconds that a login may take.
FLOW_TTL_S = 600.0
#: Logins at a time, and those of people of one server.
MAX_FLOWS, MAX_OF_SERVER = 500, 50
#: Fields of a step, and characters of an answer.
MAX_FIELDS, MAX_ANSWER = 8, 500
#: People whose login has ended without an answer, so that a late one is still not read as anything else.
_MAX_LATE = 1000
_TOKEN_BYTES = 32


class LoginRefused(HansaError):
    """There is no login: the text says why, to the person."""


@dataclass(slots=True, eq=False)
class OpenFlow:
    """The login of one person. ``until`` is in seconds of the monotonic clock. ``digest`` is that of the
    token of its form, empty where it is answered in a chat; ``form_key`` is in the form itself.
    """

    person: NativeId
    network: str
    server: str
    flow: LoginFlow = field(repr=False)
    until: float
    step: AskFields | None = None
    answers: dict[str, str] = field(default_factory=dict, repr=False)
    digest: bytes = field(default=b"", repr=False)
    form_key: str = field(default="", repr=False)

    @property
    def next_field(self) -> LoginField | None:
        """The field of the step that a chat asks for next."""
        fields = self.step.fields if self.step is not None else ()
        return next((one for one in fields if one.name not in self.answers), None)


class LoginFlows:
    """The logins under way, by person and by the token of their form."""

    def __init__(self, seams: Environment) -> None:
        self._clock = seams.clock
        self._random = seams.random
        self._flows: dict[NativeId, OpenFlow] = {}
        self._forms: dict[bytes, OpenFlow] = {}
        self._late: LruCache[NativeId, bool] = LruCache(_MAX_LATE)

    def add(self, person: NativeId, network: str, server: str, flow: LoginFlow) -> OpenFlow:
        """Begins a login, in place of one that the person has begun. Raises ``LoginRefused``."""
        self._expire()
        self.end(person)
        servers = Counter((one.person.network, one.server) for one in self._flows.values())
        if len(self._flows) >= MAX_FLOWS or servers[person.network, server] >= MAX_OF_SERVER:
            raise LoginRefused("Too many people log in now. Try again later.")
        self._late.pop(person)
        until = self._clock.monotonic() + FLOW_TTL_S
        opened = OpenFlow(person=person, network=network, server=server, flow=flow, until=until)
        self._flows[person] = opened
        return opened

    def find(self, person: NativeId) -> OpenFlow | None:
        """The login that a person has begun."""
        self._expire()
        return self._flows.get(person)

    def is_current(self, opened: OpenFlow) -> bool:
        """False if the login has ended, or another one is in its place."""
        return self.find(opened.person) is opened

    def end(self, person: NativeId) -> None:
        """Ends a login, if there is one."""
        opened = self._flows.pop(person, None)
        if opened is not None:
            self._forms.pop(opened.digest, None)
            opened.answers.clear()

    def is_late(self, person: NativeId) -> bool:
        """True if a login of the person ended before it was answered."""
        self._expire()
        return person in self._late

    def forget_late(self, person: NativeId) -> None:
        """The person was told that their login has ended."""
        self._late.pop(person)

    def make_token(self, opened: OpenFlow) -> str:
        """The token of a form for the present step: letters, digits, ``-`` and ``_``."""
        token, key = (urlsafe_b64encode(self._random.bytes(_TOKEN_BYTES)).decode().rstrip("=") for _ in "ab")
        opened.digest, opened.form_key = _digest_of(token), key
        self._forms[opened.digest] = opened
        return token

    def find_form(self, token: str) -> OpenFlow | None:
        """The login whose form has this token, and is not sent yet."""
        self._expire()
        return self._forms.get(_digest_of(token))

    def take_form(self, opened: OpenFlow, form_key: str) -> bool:
        """True once for a form, with the key that it holds: its token opens nothing from then on."""
        if self._forms.get(opened.digest) is not opened:
            return False
        if not hmac.compare_digest(opened.form_key.encode(), form_key.encode(errors="replace")):
            return False
        del self._forms[opened.digest]
        return True

    def _expire(self) -> None:
        now = self._clock.monotonic()
        for person, opened in list(self._flows.items()):
            if opened.until > now:
                break  # in the order of their ends
            self.end(person)
            self._late.put(person, True)


def require_answers(step: AskFields, given: Mapping[str, str]) -> dict[str, str]:
    """The answers to all fields of a step. Raises ``LoginRefused``."""
    return {one.name: require_answer(given.get(one.name, "")) for one in step.fields}


def require_answer(text: str) -> str:
    """An answer that a network can be given. Raises ``LoginRefused``."""
    if not 0 < len(text) <= MAX_ANSWER or not text.isprintable():
        raise LoginRefused(f"An answer is one line of 1 to {MAX_ANSWER} printable characters.")
    return text


def _digest_of(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()
