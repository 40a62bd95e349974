"""The function that writes a group of batches: one statement and one round trip, which is one transaction.

It is created again in each session that writes (``pg_temp``), so that nothing of it stays in the database and
two versions of Hansa share none. It takes the steps of a group in their order: a code for each, and its
values in three arrays, of which the code says how many are its own. Its variables have a digit in their
names, which columns never have. It begins with the row of the lease, as ``postgres_lease`` describes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum

from hansa.store.postgres_tables import PostgresTable

#: The errors of the function: a step met another writer (the text is its number, from 1); the lease is gone;
#: the last commit is not the one before this, since a backup was put in the place of what was there.
CONFLICT, GONE, BEHIND = "HA409", "HA410", "HA411"
#: A call of it: token, number of the commit, appends, lazy, codes, texts, numbers, bodies.
CALL = "SELECT pg_temp.hansa_write($1, $2, $3, $4, $5, $6, $7, $8)"
#: Steps of a group after which the lease is extended at its end too: it has taken a while.
_MANY = 500


class _WriteKind(IntEnum):
    """The kind of write of a step. Its code is the table's number times eight plus this value."""

    PUT = 0
    INSERT = 1
    CAS = 2
    DELETE = 3
    REMOVE = 4
    REMOVE_IF = 5
    APPEND = 6


def code(table: PostgresTable, kind: _WriteKind) -> int:
    """The code of a step."""
    return table.number * 8 + kind


class _Taken:
    """Counts the items that a step takes out of each array."""

    def __init__(self) -> None:
        self._next = {"t1": 0, "n1": 0, "b1": 0}

    def text(self) -> str:
        return self._take_next("t1")

    def body(self) -> str:
        return self._take_next("b1")

    def of(self, kind: type) -> str:
        return self._take_next("n1" if kind is int else "t1")

    def _take_next(self, array: str) -> str:
        self._next[array] += 1
        return f"{array}[{array[0]}2 + {self._next[array]}]"

    def past(self) -> str:
        return " ".join(
            f"{array[0]}2 := {array[0]}2 + {count};" for array, count in self._next.items() if count
        )


def _row_values(table: PostgresTable, taken: _Taken, *, position: bool) -> list[str]:
    scope = taken.text()
    keys = ["pos1"] if position else [taken.of(kind) for kind in table.key_types]
    return [scope, *keys, *(taken.of(kind) for _, kind in table.fields), taken.body(), taken.body()]


def _key_condition(table: PostgresTable, values: Sequence[str]) -> str:
    return " AND ".join(
        f'"{name}" = {given}' for name, given in zip(("scope", *table.keys), values, strict=True)
    )


_OR_CONFLICT = f"IF NOT FOUND THEN RAISE EXCEPTION USING ERRCODE = '{CONFLICT}', MESSAGE = i1::text; END IF;"


def _step_sql(table: PostgresTable, kind: _WriteKind) -> str:
    """Returns the SQL of a step of a table."""
    taken = _Taken()
    if kind in {_WriteKind.DELETE, _WriteKind.REMOVE, _WriteKind.REMOVE_IF}:
        where = _key_condition(table, [taken.text(), *map(taken.of, table.key_types)])
        there = f" AND body = {taken.body()}" if kind is _WriteKind.REMOVE_IF else ""
        checked = "" if kind is _WriteKind.DELETE else _OR_CONFLICT
        return f'DELETE FROM "{table.name}" WHERE {where}{there}; {checked} {taken.past()}'
    values = _row_values(table, taken, position=kind is _WriteKind.APPEND)
    names = [name for name, _ in table.fields] + ["body", "L"]
    if kind is _WriteKind.CAS:
        count = 1 + len(table.keys)
        sets = ", ".join(f'"{n}" = {v}' for n, v in zip(names, values[count:], strict=True))
        where = _key_condition(table, values[:count])
        sql = f'UPDATE "{table.name}" SET {sets} WHERE {where} AND body = {taken.body()}; {_OR_CONFLICT}'
        return f"{sql} {taken.past()}"
    columns = ", ".join(f'"{name}"' for name in ("scope", *table.keys, *names))
    sql = f'INSERT INTO "{table.name}" ({columns}) VALUES ({", ".join(values)})'
    if kind is _WriteKind.APPEND:
        return f"pos1 := pos1 + 1; {sql}; {taken.past()}"
    if kind is _WriteKind.INSERT:
        return f"{sql} ON CONFLICT DO NOTHING; {_OR_CONFLICT} {taken.past()}"
    primary = ", ".join(f'"{name}"' for name in ("scope", *table.keys))
    sets = ", ".join(f'"{name}" = EXCLUDED."{name}"' for name in names)
    return f"{sql} ON CONFLICT ({primary}) DO UPDATE SET {sets}; {taken.past()}"


def _case_sql(variable: str, cases: Sequence[tuple[int, Callable[[], str]]]) -> str:
    """The case of a variable's value, found by halves."""
    if len(cases) == 1:
        return cases[0][1]()
    half = len(cases) // 2
    low, high = _case_sql(variable, cases[:half]), _case_sql(variable, cases[half:])
    return f"IF {variable} < {cases[half][0]} THEN {low} ELSE {high} END IF;"


def _steps_of_table(table: PostgresTable) -> Callable[[], str]:
    kinds = [kind for kind in _WriteKind if table.collection.stream or kind is not _WriteKind.APPEND]
    return lambda: _case_sql("kind1", [(kind, lambda kind=kind: _step_sql(table, kind)) for kind in kinds])  # type: ignore[misc]


def function(lease: str, tables: Sequence[PostgresTable], seconds: int) -> str:
    """The statement that makes it, for tables in the order of their numbers. ``lease``: the lease's table;
    ``seconds``: for how long it is extended.
    """
    cases = [(table.number, _steps_of_table(table)) for table in tables]
    until = f"clock_timestamp() + interval '{seconds} s'"
    return f"""
CREATE OR REPLACE FUNCTION pg_temp.hansa_write(
  mine1 text, number1 bigint, appends1 bigint, lazy1 boolean,
  codes1 integer[], t1 text[], n1 bigint[], b1 bytea[]
) RETURNS bigint LANGUAGE plpgsql AS $hansa$
DECLARE
  pos1 bigint; last1 bigint; step1 integer; place1 integer; kind1 integer;
  i1 integer := 0; t2 integer := 0; n2 integer := 0; b2 integer := 0;
BEGIN
  IF lazy1 THEN PERFORM set_config('synchronous_commit', 'off', true); END IF;
  UPDATE {lease} SET position = position + appends1, number = number1, until = {until}
    WHERE id = 1 AND token = mine1 AND number = number1 - 1 RETURNING position INTO last1;
  IF NOT FOUND AND EXISTS (SELECT FROM {lease} WHERE id = 1 AND token = mine1) THEN
    RAISE EXCEPTION USING ERRCODE = '{BEHIND}', MESSAGE = 'the last commit is another';
  END IF;
  IF last1 IS NULL THEN RAISE EXCEPTION USING ERRCODE = '{GONE}', MESSAGE = 'the lease is gone'; END IF;
  pos1 := last1 - appends1;
  FOREACH step1 IN ARRAY codes1 LOOP
    i1 := i1 + 1; place1 := step1 / 8; kind1 := step1 % 8;
    {_case_sql("place1", cases) if cases else "NULL;"}
  END LOOP;
  IF i1 > {_MANY} THEN UPDATE {lease} SET until = {until} WHERE id = 1; END IF;
  RETURN last1;
END $hansa$"""
