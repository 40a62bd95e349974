"""The privileges that a role must have in its database, and the text about a missing one for the
administrator.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hansa.store.faults import FaultKind, StoreFault

#: SQLSTATE of a right that is missing.
DENIED = "42501"
#: Of tables that are there ($1): role, schema, table and each right that the role has not.
MISSING = """
SELECT current_user::text, current_schema()::text, c.relname::text, string_agg(r, ', ' ORDER BY n)
FROM pg_class c, unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) WITH ORDINALITY AS needed(r, n)
WHERE c.relnamespace = current_schema()::regnamespace AND c.relname = ANY($1::text[])
  AND NOT has_table_privilege(c.oid, r) GROUP BY 1, 2, 3 ORDER BY 3
"""
#: Role, and whether it may make temporary functions, has a schema, and may make tables there.
ALLOWED = """
SELECT current_user::text, current_database()::text, current_schema()::text,
  has_database_privilege(current_database(), 'TEMPORARY'),
  current_schema() IS NOT NULL AND has_schema_privilege(current_schema(), 'CREATE')
"""
#: The object that a denial names, and the right that is missing.
_OBJECT = re.compile(r"permission denied for (table|schema|database) (\S+)")
_RIGHTS = {
    "table": "SELECT, INSERT, UPDATE and DELETE",
    "schema": "USAGE and CREATE",
    "database": "TEMPORARY",
}
#: Tables that are named one by one.
_NAMED = 3


def lacking(place: str, tables: Sequence[Sequence[str]]) -> StoreFault:
    """The fault of tables that ``MISSING`` names."""
    role, schema = tables[0][0], tables[0][1]
    each = [f"{rights} on table {name}" for _, _, name, rights in tables[:_NAMED]]
    more = len(tables) - _NAMED
    if more > 0:
        each.append(f"rights on {more} more")
    remedy = f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}"
    text = f"PostgreSQL {place}: role {role} lacks {'; '.join(each)}: {remedy}"
    return StoreFault(FaultKind.FORBIDDEN, text)


def refused(place: str, allowed: Sequence[object], making: bool) -> StoreFault | None:
    """The fault of a role whose row of ``ALLOWED`` lacks something; ``making``: tables are to be made."""
    role, database, schema, temporary, create = allowed
    if schema is None:
        lack = "has no schema: name one in its search_path, on which it has USAGE and CREATE"
    elif not temporary:
        lack = f"lacks TEMPORARY on database {database}: GRANT TEMPORARY ON DATABASE {database} TO {role}"
    elif making and not create:
        lack = f"lacks CREATE on schema {schema}: GRANT CREATE ON SCHEMA {schema} TO {role}"
    else:
        return None
    return StoreFault(FaultKind.FORBIDDEN, f"PostgreSQL {place}: role {role} {lack}")


def denied(place: str, role: str, text: str) -> StoreFault:
    """The fault of an error ``DENIED`` whose text is the server's."""
    found = _OBJECT.search(text)
    needs = f"; it needs {_RIGHTS[found[1]]} there" if found is not None else ""
    return StoreFault(FaultKind.FORBIDDEN, f"PostgreSQL {place}: role {role or '?'}: {text}{needs}")
