"""The pages of a login's form, as HTML without scripts and without anything from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from hansa.api.logins import AskFields, LoginField
from hansa.model.printable import printable

#: Name of the field that shows that a form was loaded from here.
FORM_KEY = "form_key"
_DOCUMENT = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title></head>
<body><main><h1>{title}</h1>
{body}</main></body>
</html>
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginForm:
    """What a form says: the step, the path it is posted to, and who logs in where."""

    step: AskFields
    action: str
    form_key: str
    network: str
    server: str
    person: str


def render_form(form: LoginForm) -> str:
    """The page with the form of one step."""
    fields, text = form.step.fields, form.step.text
    rows = "\n".join(_render_field(one, first=one is fields[0]) for one in fields)
    warning = (
        f"<p><strong>{escape(form.person)}</strong> will speak on {escape(form.network)} "
        f"({escape(form.server)}) as the account that you enter. Close this page if that is not you, or if "
        "another person sent you the link.</p>"
    )
    more = f"<p>{escape(printable(text, 500))}</p>" if text else ""
    body = (
        f'{warning}{more}\n<form method="post" action="{escape(form.action)}" autocomplete="off">\n'
        f'<input type="hidden" name="{FORM_KEY}" value="{escape(form.form_key)}">\n{rows}\n'
        '<p><button type="submit">Log in</button></p></form>\n'
    )
    return _DOCUMENT.format(title=f"Log in to {escape(form.network)}", body=body)


def render_text(title: str, text: str) -> str:
    """A page that says one thing."""
    return _DOCUMENT.format(title=escape(title), body=f"<p>{escape(printable(text, 1000))}</p>\n")


def _render_field(one: LoginField, *, first: bool) -> str:
    kind = "password" if one.secret else "text"
    focus = " autofocus" if first else ""
    name, label = escape(one.name), escape(printable(one.label, 100))
    return (
        f'<p><label for="{name}">{label}</label><br>'
        f'<input id="{name}" name="{name}" type="{kind}" required maxlength="500" autocomplete="off" '
        f'autocapitalize="none" spellcheck="false"{focus}></p>'
    )
