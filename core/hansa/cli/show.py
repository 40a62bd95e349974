"""Answers as people read them."""

from __future__ import annotations

from typing import Any

from hansa.model.commands import counted, format_pairs, format_table, format_time
from hansa.model.feature_table import WORDS

__all__ = [
    "decisions",
    "deliveries",
    "explanation",
    "format_pairs",
    "format_table",
    "matches",
    "plugins",
    "room",
    "rooms",
    "status",
    "tested",
    "where",
]


def plugins(found: Any) -> str:
    """``hansa plugins``."""
    rows = [
        [
            p["name"],
            ", ".join(p["distributions"]),
            ", ".join(p["versions"]),
            ", ".join(p["enabled"]) or "not enabled",
        ]
        for p in found
    ]
    return format_table(["plugin", "from", "version", "enabled as"], rows)


def matches(found: Any) -> str:
    """``hansa search``."""
    if any("person" in one for one in found):
        return format_table(["person", "name"], [[one["person"], one["name"]] for one in found])
    rows = [[one["room"], one["name"], str(one["members"] or ""), one["topic"]] for one in found]
    return format_table(["room", "name", "members", "topic"], rows) if rows else "nothing was found"


def rooms(found: Any) -> str:
    """``hansa rooms ls``."""
    rows = [
        [
            r["room"],
            r["name"],
            ", ".join(r["addresses"]),
            str(r["events"]),
            str(r["joined"]),
            ", ".join(x["link"] for x in r["links"]),
        ]
        for r in found
    ]
    return format_table(["room", "name", "addresses", "events", "joined", "links"], rows)


def room(found: Any) -> str:
    """``hansa rooms show``."""
    head = f"{found['room']}  {found['name']}  ({found['join_rule']}, {counted(found['events'], 'event')})"
    people = [[p["user"], p["membership"], p["role"], p["name"] or ""] for p in found["people"]]
    links = [
        [x["link"], "authority" if x["authority"] else ("hosted" if x["hosted"] else "")]
        for x in found["links"]
    ]
    if found["addresses"]:
        head += f"\n{', '.join(found['addresses'])}"
    if found["topic"]:
        head += f"\ntopic: {found['topic']}"
    parts = [head, format_table(["link", ""], links), format_table(["user", "is", "role", "name"], people)]
    if found.get("crosses"):
        parts.append(_crossings(found["crosses"]))
    if found.get("denied"):
        denied = [[d["network"], d["server"], d["because"]] for d in found["denied"]]
        parts.append("Denied servers are in this room. Nothing is sent to it while they are in it:")
        parts.append(format_table(["network", "server", "because"], denied))
    return "\n\n".join(parts)


#: The levels of features, as people read them.
_LEVELS = {level.name.lower(): words for level, words in WORDS.items()}


def _crossings(pairs: Any) -> str:
    kinds = dict.fromkeys(kind for pair in pairs for kind in pair["levels"])
    rows = [[kind, *(_crossing_cell(pair, kind) for pair in pairs)] for kind in kinds]
    return format_table(["what crosses", *(f"{pair['from']} → {pair['to']}" for pair in pairs)], rows)


def _crossing_cell(pair: Any, kind: str) -> str:
    ranked = ", with a rank" if kind in pair.get("ranked", ()) else ""
    words = _LEVELS.get(pair["levels"].get(kind, ""), "")
    return f"{words}{ranked}" if words else ""


def deliveries(found: Any) -> str:
    """``hansa deliveries ls``."""
    rows = [
        [
            d["destination"],
            str(d["waiting"]),
            str(d.get("unconfirmed", 0)),
            format_time(d["since"]) if d["since"] else "",
            str(len(d["dead"])),
            d["reason"],
        ]
        for d in found
    ]
    return format_table(["destination", "waiting", "unconfirmed", "since", "dead", "why it waits"], rows)


def where(found: Any) -> str:
    """``hansa where``."""
    rows = [
        [d["destination"], d["state"], format_time(d["since"]) if d.get("since") else "", d.get("reason", "")]
        for d in found["destinations"]
    ]
    head = f"{found['event']}  a {found['content']} by {found['sender']}"
    return f"{head}\n{format_table(['destination', 'state', 'since', 'reason'], rows)}"


def decisions(found: Any) -> str:
    """``hansa policy log``."""
    rows = []
    for one in found:
        shadow = one["mode"] == "shadow"
        reasons = one["would_reasons"] if shadow else one["reasons"]
        facts = one["facts"]
        who = facts.get("server") or facts.get("sender") or facts.get("user") or facts.get("command") or ""
        verdict = f"would {one['would']}" if shadow else one["action"]
        why = ", ".join(f"{r['policy']}: {r['rule']}" for r in reasons)
        times = f" x {one['count']}" if one.get("count", 1) > 1 else ""
        rows.append(
            [format_time(one.get("last", one["ts"])), one["id"], verdict + times, facts["crossing"], who, why]
        )
    return format_table(["when", "decision", "verdict", "crossing", "who", "because"], rows)


def status(found: Any) -> str:
    """``hansa status``."""
    if found["store"]["state"] == "standby":
        waits = found["store"]
        why = f"\nit cannot be requested: {waits['text']}" if waits["text"] else ""
        who = f"process {waits['pid']} on {waits['host']}"
        return f"standby since {format_time(waits['since'])}: {who} has the database{why}"
    networks = [[n["id"], n["state"], str(n["restarts"]), n["text"]] for n in found["networks"]]
    policies = [[p["name"], "shadow" if p["shadow"] else "enforced"] for p in found["policies"]]
    tables = [
        format_table(["network", "is", "restarts", ""], networks) if networks else "networks: none",
        format_table(["policy", ""], policies) if policies else "policies: none",
    ]
    store = found["store"]
    if store["state"] == "up":
        slow = store.get("slow_since", 0)
        said = f"store: slow since {format_time(slow)}" if slow else "store: up"
    else:
        said = f"store: degraded, {store['kind']} since {format_time(store['since'])}: {store['text']}"
    return "\n\n".join([said, *tables, f"rooms: {found['rooms']}"])


def explanation(found: Any) -> str:
    """``hansa policy explain``."""
    shadow = found["mode"] == "shadow"
    lines = [f"{found['id']}  {format_time(found['ts'])}  {found['would'] if shadow else found['action']}"]
    if shadow:
        lines.append("in shadow mode: nothing was stopped")
    lines += [f"  {r['code']}  {r['policy']}: {r['rule']}  {r['admin_text']}" for r in found["reasons"]]
    lines += [f"  would: {r['code']}  {r['policy']}: {r['rule']}" for r in found["would_reasons"]]
    lines += [f"  {key}: {value}" for key, value in found["facts"].items()]
    return "\n".join(lines)


def tested(found: Any) -> str:
    """``hansa policy test``."""
    rows = [
        [
            p["policy"],
            "shadow" if p["shadow"] else "",
            p["way"],
            p["action"],
            "; ".join(p["reasons"]) or p["failed"],
        ]
        for p in found["policies"]
    ]
    out = [f"out to {link}: {action}" for link, action in found["out"].items() if action != "allow"]
    said = "\n".join([found["action"], *out])
    return f"{said}\n{format_table(['policy', '', 'way', 'says', 'because'], rows)}"
