"""What the optimizer works on, on this rank: flat fp32 pieces of the trained weights, Adam's moments, the average.

DeepSpeed cuts the parameters in another way at every ZeRO stage and number of ranks. Here a `Fragment` says where a
piece of a flat tensor stands in its parameter, so that a checkpoint can be read by any number of ranks at any stage:
each reads the ranges that are its own, and none holds more than its share.

Deviation: DeepSpeed's own checkpoints are bound to the number of ranks. Its conversion to universal ones unpickles
whatever the files hold, and loading these under ZeRO-3 gives every group the weight decay of the first.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from train.checkpoint import load_state
from train.weight_ema import WeightEma, WeightEmaConfig


@dataclass(frozen=True)
class Fragment:
    """`numel` values of the parameter `name` from `offset` on; in their flat tensor they stand from `start` on."""

    name: str
    offset: int
    start: int
    numel: int


class Masters:
    """Every method is to be called on all ranks. `optimizer` is what deepspeed.initialize returns."""

    def __init__(self, model: nn.Module, optimizer: Any, zero_stage: int, ema: WeightEmaConfig, rank: int):
        self._model, self._optimizer, self._stage, self._rank = model, optimizer, zero_stage, rank
        self._adam = getattr(optimizer, "optimizer", optimizer)
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        self.flats: list[Tensor]
        self.fragments: list[list[Fragment]]
        if zero_stage == 3:
            self.flats = optimizer.fp32_partitioned_groups_flat
            self.fragments = [_cut_by_zero3(group, names, rank) for group in optimizer.fp16_groups]
        else:
            self.flats = [flat for group in self._adam.param_groups for flat in group["params"]]
            if zero_stage == 0:  # whole on every rank: the parameters themselves, or their fp32 copies
                self._weights = [p for group in getattr(optimizer, "fp16_groups", [self.flats]) for p in group]
                self.fragments = [[Fragment(names[id(weight)], 0, 0, weight.numel())] for weight in self._weights]
            else:
                self.fragments = [_cut_by_zero1(group, names) for group in optimizer.bit16_groups]
        self.average = WeightEma({str(i): flat for i, flat in enumerate(self.flats)}, ema)
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._shapes = {name: list(getattr(p, "ds_shape", p.shape)) for name, p in trained.items()}

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the model computes with the average of its weights, if one is kept and the config asks for it."""
        if not self.average.is_shown:
            yield
            return
        with self._writing():
            self.average.exchange()
        try:
            yield
        finally:
            with self._writing():
                self.average.exchange()

    def state_dict(self) -> dict[str, Any]:
        num = 0 if self._stage == 0 and self._rank else len(self.flats)  # what all ranks have is saved once
        fragments = [[astuple(fragment) for fragment in pieces] for pieces in self.fragments[:num]]
        tensors = {key: [t.detach() for t in tensors[:num]] for key, tensors in self._tensors().items()}
        steps = [int(self._adam_state(flat)["step"]) for flat in self.flats[:num]]
        return {"shapes": self._shapes, "fragments": fragments, "steps": steps, **tensors}

    @torch.no_grad()
    def load(self, paths: list[Path]) -> None:
        """Reads what all ranks of the run that saved had in their `state_dict`, as far as it is of this rank.

        An average that is kept from now on begins with the weights.
        """
        shards = [load_state(path, mmap=True) for path in paths]
        self._refuse_other_shapes(paths[0].parent, shards[0]["shapes"])
        pieces = defaultdict(list)
        for shard in shards:
            for i, fragments in enumerate(shard["fragments"]):
                for fragment in fragments:
                    pieces[fragment[0]].append((shard, i, Fragment(*fragment)))
        with self._writing():
            for i, fragments in enumerate(self.fragments):
                for own in fragments:
                    found = sum(self._copy(i, own, *piece) for piece in pieces[own.name])
                    if found != own.numel:
                        raise ValueError(f"{paths[0].parent} is not whole: a part of {own.name} is missing")

    def sum_of_the_untrained(self) -> Tensor:
        """The sum of the bytes of frozen weights and buffers, int64[]: each rank's partitions, what is whole once."""
        frozen = [parameter for parameter in self._model.parameters() if not parameter.requires_grad]
        parts = [_own_share(parameter, self._rank) for parameter in frozen if self._stage == 3]
        if self._rank == 0:
            parts += [*self._model.buffers(), *(frozen if self._stage < 3 else ())]
        total = torch.zeros((), dtype=torch.int64)
        for part in parts:
            total += part.detach().flatten().view(torch.uint8).sum(dtype=torch.int64).cpu()
        return total

    def _copy(self, i: int, own: Fragment, shard: dict[str, Any], j: int, piece: Fragment) -> int:
        """Copies what `own`, of flat tensor i, and `piece`, of flat tensor j of the shard, share; returns its size."""
        first = max(own.offset, piece.offset)
        size = min(own.offset + own.numel, piece.offset + piece.numel) - first
        if size <= 0:
            return 0
        for key, tensors in self._tensors().items():
            source = shard.get(key, shard["fp32"])[j].view(-1)[piece.start + first - piece.offset :]
            tensors[i].view(-1)[own.start + first - own.offset :][:size].copy_(source[:size])
        self._adam_state(self.flats[i])["step"].fill_(shard["steps"][j])
        return size

    def _tensors(self) -> dict[str, list[Tensor]]:
        """Everything that is one number per weight, by name; flat tensors in the order of `flats`."""
        states = [self._adam_state(flat) for flat in self.flats]
        moments = {key: [state[key] for state in states] for key in ("exp_avg", "exp_avg_sq")}
        averages = {"average": self.average.averages} if self.average.averages else {}
        return {"fp32": self.flats, **moments, **averages}

    def _adam_state(self, flat: Tensor) -> dict[str, Tensor]:
        """As torch's fused AdamW makes it at its first step."""
        state = self._adam.state[flat]
        if not state:
            state["step"] = torch.zeros((), device=flat.device)
            state |= {key: torch.zeros_like(flat, requires_grad=False) for key in ("exp_avg", "exp_avg_sq")}
        return state

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Inside, `flats` may be written; the weights that the model computes with follow, on all ranks."""
        if self._stage == 3:
            self._optimizer.checkpoint_event_prologue()
        yield
        if self._stage == 3:
            for i in range(len(self.flats)):
                self._optimizer._reassign_or_swap_out_partitioned_parameters(i)
            self._optimizer.checkpoint_event_epilogue()
        elif self._stage > 0:
            self._optimizer.update_lp_params()
        else:
            for weight, flat in zip(self._weights, self.flats, strict=True):
                weight.data.copy_(flat.data)

    def _refuse_other_shapes(self, folder: Path, saved: dict[str, list[int]]) -> None:
        own = self._shapes
        differing = [name for name in {**saved, **own} if saved.get(name) != own.get(name)]
        if differing:
            name = differing[0]
            raise ValueError(
                f"{folder} is of another model or of other trainable parts: {name} is {saved.get(name)} there and "
                f"{own.get(name)} here, and {len(differing) - 1} more differ; restore the config, or use another `out`"
            )


def _cut_by_zero3(group: list[nn.Parameter], names: dict[int, str], rank: int) -> list[Fragment]:
    """Every parameter is divided among all ranks; the last share is padded."""
    fragments, start = [], 0
    for parameter in group:
        size: int = parameter.partition_numel()  # type: ignore[attr-defined]
        fragments.append(Fragment(names[id(parameter)], rank * size, start, len(_own_share(parameter, rank))))
        start += size
    return fragments


def _own_share(parameter: Any, rank: int) -> Tensor:
    """This rank's partition under ZeRO-3, without what fills up the last one."""
    share = parameter.ds_tensor.detach().view(-1)
    return share[: max(parameter.ds_numel - rank * len(share), 0)]


def _cut_by_zero1(group: list[nn.Parameter], names: dict[int, str]) -> list[Fragment]:
    """The group is laid out in one line and the line is divided; some parameters have no part on this rank."""
    mappings = {names[id(p)]: p._hp_mapping for p in group if p._hp_mapping is not None}  # type: ignore[attr-defined]
    return [
        Fragment(name, m.lp_fragment_address.start, m.hp_fragment_address.start, m.hp_fragment_address.numel)
        for name, m in mappings.items()
    ]
