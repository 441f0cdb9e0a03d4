"""The weights in a checkpoint of the unified model, whole again, without the processes that wrote it."""

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from train.checkpoint import load_state


class CheckpointWeights(Mapping[str, Tensor]):
    """The weights `names`. Trained ones are float32, put together from the pieces of all ranks when they are asked for.

    `kind` is "fp32", or "average" where the run keeps an average of its weights; a checkpoint of before it did has
    none, and its weights are their own average. A checkpoint holds what is trained alone (train/masters.py); `frozen`
    is called for the others, if there are any.
    """

    def __init__(
        self, checkpoint: Path, names: Collection[str], kind: str, frozen: Callable[[], Mapping[str, Tensor]]
    ) -> None:
        self.checkpoint, self._names = checkpoint, names
        self._shapes: dict[str, list[int]] = {}
        self._pieces: dict[str, list[tuple[int, Tensor]]] = defaultdict(list)  # each float32[n] and where it begins
        for rank in range(load_state(checkpoint / "state.pt")["world_size"]):
            shard = load_state(checkpoint / f"shard-{rank:05d}.pt", mmap=True)
            self._shapes |= shard["shapes"]
            for flat, fragments in zip(shard.get(kind, shard["fp32"]), shard["fragments"], strict=True):
                for name, offset, start, numel in fragments:
                    self._pieces[name].append((offset, flat.view(-1)[start : start + numel]))
        self._frozen = frozen() if set(names) - set(self._shapes) else {}
        missing = sorted(set(names) - set(self._shapes) - set(self._frozen))
        if missing:
            raise ValueError(
                f"{checkpoint} holds only what is trained, and {missing[0]} ({len(missing)} in all) was frozen at its "
                "random start: continue the run to its end, which exports all of it"
            )

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._shapes:
            return self._frozen[name]
        shape, pieces = self._shapes[name], self._pieces[name]
        if sum(len(piece) for _, piece in pieces) != math.prod(shape):
            raise ValueError(f"{self.checkpoint} is not whole: a part of {name} is missing")
        weight = torch.empty(shape)
        for offset, piece in pieces:
            weight.view(-1)[offset : offset + len(piece)] = piece
        return weight

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
