"""Values that are made often are made faster, and are what they were."""

from __future__ import annotations

import dataclasses
import inspect

import pytest
from hansa.model.fast_dataclass import quick


@dataclasses.dataclass(frozen=True, slots=True)
class Plain:
    a: int
    b: str = "b"
    c: list[int] = dataclasses.field(default_factory=list)
    d: int = dataclasses.field(default=4, kw_only=True)


@quick
@dataclasses.dataclass(frozen=True, slots=True)
class Quick:
    a: int
    b: str = "b"
    c: list[int] = dataclasses.field(default_factory=list)
    d: int = dataclasses.field(default=4, kw_only=True)


@pytest.mark.parametrize("given", [(1,), (1, "x"), (1, "x", [2])])
@pytest.mark.parametrize("named", [{}, {"d": 5}])
def test_it_says_the_same(given, named):
    plain, made = Plain(*given, **named), Quick(*given, **named)
    assert dataclasses.astuple(made) == dataclasses.astuple(plain)
    assert dataclasses.replace(made, a=7) == Quick(7, made.b, made.c, d=made.d)
    assert list(inspect.signature(Quick).parameters) == list(inspect.signature(Plain).parameters)


def test_every_value_has_its_own_default():
    assert Quick(1).c is not Quick(1).c


def test_it_is_frozen():
    made = Quick(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.a = 2
    assert made == Quick(1) and made != Quick(2)


@pytest.mark.parametrize("wrong", [{}, {"a": 1, "e": 2}])
def test_what_is_lacking_or_unknown_is_refused(wrong):
    with pytest.raises(TypeError):
        Quick(**wrong)


def test_what_does_more_than_fill_its_slots_is_refused():
    @dataclasses.dataclass(frozen=True, slots=True)
    class Checked:
        a: int

        def __post_init__(self) -> None:
            raise ValueError

    with pytest.raises(TypeError, match="Checked does more"):
        quick(Checked)
