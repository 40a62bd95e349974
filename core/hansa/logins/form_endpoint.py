"""The form of a login on the public port: shown as often as it is opened, taken once."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl, urlsplit

from hansa.api.logins import AskFields, LogsIn
from hansa.environment import Clock, Request, Response
from hansa.http.router import Router
from hansa.logins.core_logins import FORM_PATH, CoreLogins
from hansa.logins.flows import MAX_FIELDS, LoginRefused, OpenFlow, require_answers
from hansa.logins.form_page import FORM_KEY, LoginForm, render_form, render_text
from hansa.model.addresses import neighbourhood
from hansa.pacing.token_buckets import TokenBuckets

#: Bytes of a posted form, and requests a second of one neighbourhood, with those at once.
MAX_BODY, _RATE, _BURST = 16_384, 0.5, 20
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_GONE = "This link was used, or has ended. Ask the bridge for another one."
_FORM_TYPE = "application/x-www-form-urlencoded"


class LoginFormEndpoint:
    """``GET`` and ``POST /_hansa/login/TOKEN``. A preview of the link, which some server fetches, uses up
    nothing. The token is in the path, and no secret ever is.
    """

    def __init__(self, logins: CoreLogins, clock: Clock) -> None:
        self._logins = logins
        self._of_address = TokenBuckets(clock, _RATE, _BURST)

    def add_routes(self, router: Router) -> None:
        """Registers the endpoint."""
        pattern = f"{FORM_PATH}/{{token}}"
        router.add("GET", pattern, self.show_form, max_body=0)
        router.add("POST", pattern, self.take_form, max_body=MAX_BODY)

    async def show_form(self, request: Request) -> Response:
        """Answers with the form of a login."""
        request.reads_only()
        if self._of_address.take(neighbourhood(request.remote)):
            return _say(429, "Too many requests. Try again in a minute.")
        opened = self._logins.flows.find_form(request.path["token"])
        if opened is None or opened.step is None:
            return _say(404, _GONE)
        return self._page(opened, opened.step, request.path["token"])

    async def take_form(self, request: Request) -> Response:
        """Takes the answers of a form, and shows the next step or what became of the login."""
        if self._of_address.take(neighbourhood(request.remote)):
            return _say(429, "Too many requests. Try again in a minute.")
        if not _is_same_site(request):
            return _say(403, "This form was sent from another site.")
        opened = self._logins.flows.find_form(request.path["token"])
        if opened is None or opened.step is None:
            return _say(404, _GONE)
        try:
            given = _read_form(request)
            answers = require_answers(opened.step, given)
        except LoginRefused as refused:
            return _say(400, f"{refused} Go back and try again.")
        # Nothing waits between this and the find above: of two requests, one gets the form.
        if not self._logins.flows.take_form(opened, given.get(FORM_KEY, "")):
            return _say(403, "This form was not loaded from here. Open the link again.")
        step = await self._logins.advance(opened, answers)
        if isinstance(step, str):
            return _say(200, f"{step} You can close this page.")
        return self._page(opened, step, self._logins.flows.make_token(opened))

    def _page(self, opened: OpenFlow, step: AskFields, token: str) -> Response:
        instance = self._logins.network(opened.network)
        form = LoginForm(
            step=step,
            action=f"{FORM_PATH}/{token}",
            form_key=opened.form_key,
            network=opened.network,
            server=instance.login_server if isinstance(instance, LogsIn) else "",
            person=opened.person.id,
        )
        return _to_html(200, render_form(form))


def _is_same_site(request: Request) -> bool:
    """False if a browser says that another site sends the form. Under ``no-referrer`` the origin is null."""
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return False
    origin = request.headers.get("origin", "null")
    return origin == "null" or urlsplit(origin).netloc.lower() == request.headers.get("host", "").lower()


def _read_form(request: Request) -> Mapping[str, str]:
    """The fields of a posted form. Raises ``LoginRefused``."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind != _FORM_TYPE:
            raise ValueError(kind)
        text = request.body.decode("ascii")
        pairs = parse_qsl(
            text, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=MAX_FIELDS + 1
        )
    except ValueError:  # also UnicodeError; its text would have what was sent
        raise LoginRefused("The request is not the form.") from None
    given = dict(pairs)
    if len(given) != len(pairs):
        raise LoginRefused("The request is not the form.")
    return given


def _say(status: int, text: str) -> Response:
    return _to_html(status, render_text("Log in", text))


def _to_html(status: int, page: str) -> Response:
    return Response(
        status=status, body=page.encode(errors="replace"), headers=_HEADERS, content_type="text/html"
    )
