"""The id of a user, room or event in its network: a native id and the id of the network."""

from __future__ import annotations

from dataclasses import dataclass

from hansa.model.fast_dataclass import quick


@quick
@dataclass(frozen=True, slots=True)
class NativeId:
    """A native id and the network it belongs to. Only that network parses ``id``."""

    network: str
    id: str

    def __str__(self) -> str:
        return f"{self.network}:{self.id}"
