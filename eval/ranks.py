"""The processes that share an evaluation, as far as it needs them; `train.distributed.World` is one."""

from dataclasses import dataclass
from typing import Any, Protocol


class Ranks(Protocol):
    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def gather(self, value: Any) -> list[Any]:
        """A small object of every process, in the order of their ranks, in every process."""

    def barrier(self) -> None:
        """Returns when all processes have come here."""


@dataclass(frozen=True)
class Alone:
    """One process."""

    rank: int = 0
    size: int = 1

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def barrier(self) -> None:
        return None
