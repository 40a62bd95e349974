"""The error texts for values of the configuration that are not valid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel

#: By the kind that the validator gives it; ``{name}`` is one of the validator's own facts.
_TEXTS = {
    "extra_forbidden": "there is no such setting",
    "missing": "must be given",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "path_type": "must be text",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "greater_than_equal": "must be {ge} or more",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be {le} or less",
    "less_than": "must be less than {lt}",
    "string_too_short": "must have {min_length} characters or more",
    "string_too_long": "must have {max_length} characters or fewer",
    "too_short": "must have {min_length} entries or more",
    "too_long": "must have {max_length} entries or fewer",
    "literal_error": "must be {expected}",
}


def describe_mistake(error: Any) -> str:
    """One entry of a ``ValidationError``'s ``errors()`` in words; an unknown kind in the validator's own."""
    text = _TEXTS.get(error["type"])
    if text is None:
        return str(error["msg"]).removeprefix("Value error, ")
    return text.format(**error.get("ctx", {}))


def confused(given: Mapping[str, Any], model: type[BaseModel], path: str) -> Iterator[tuple[str, str]]:
    """``(path, mistake)`` for each value that a table would take for another kind than is written: ``true``
    as the number 1, or a number as true or false.
    """
    for name, info in model.model_fields.items():
        value, kinds = given.get(name), {info.annotation, *get_args(info.annotation)}
        where = f"{path}.{name}"
        if isinstance(value, bool) and kinds & {int, float} and bool not in kinds:
            yield where, f"must be a number, not {str(value).lower()}"
        elif isinstance(value, int | float) and not isinstance(value, bool) and bool in kinds:
            yield where, f"must be true or false, not {value}"
        elif isinstance(value, Mapping):
            for kind in kinds:
                if isinstance(kind, type) and issubclass(kind, BaseModel):
                    yield from confused(value, kind, where)
