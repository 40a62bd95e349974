"""The right to read an event, by the table of the specification: client-server API, "Room History
Visibility".
"""

from __future__ import annotations

import pytest
from hansa_matrix.proto.history_visibility import memberships_that_read, user_can_read

VALUES, MEMBERSHIPS = (
    ("world_readable", "shared", "invited", "joined"),
    ("join", "invite", "leave", "knock", ""),
)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("membership", MEMBERSHIPS)
@pytest.mark.parametrize("later", [True, False])
def test_a_person_reads_by_the_value_of_the_time_and_their_membership_of_the_time(value, membership, later):
    expected = {
        "world_readable": True,
        "shared": membership == "join" or later,
        "invited": membership == "join" or (membership == "invite" and later),
        "joined": membership == "join",
    }[value]
    assert user_can_read({value}, {membership}, later=later) is expected


@pytest.mark.parametrize("other", VALUES)
@pytest.mark.parametrize("membership", MEMBERSHIPS)
def test_of_the_values_on_either_side_of_an_event_the_more_generous_one_counts(other, membership):
    both = user_can_read({"joined", other}, {membership}, later=True)
    assert both is user_can_read({other}, {membership}, later=True)


@pytest.mark.parametrize("value", VALUES)
def test_a_server_gets_what_one_of_its_people_can_read(value):
    enough = memberships_that_read(value)
    for membership in MEMBERSHIPS:
        assert (enough is None or membership in enough) is user_can_read({value}, {membership}, later=True)
