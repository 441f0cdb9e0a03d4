"""Sampling the D codes of a position (arXiv 2503.14324, section 3.3): guidance, temperature, top-k, top-p, one draw.

Classifier-free guidance acts on the logits of every depth: u + cfg (c - u). Each code is drawn by inverting the
cumulative distribution at one uniform number, and an image's uniform numbers come from its own seed: what an image
becomes does not depend on the images it is drawn with.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from heads.depth_transformer import DepthTransformer


@dataclass(frozen=True)
class BranchSampling:
    """Settings of one codebook; None means the setting that both share."""

    cfg: float | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None


@dataclass(frozen=True)
class SamplingConfig:
    """How codes are drawn, in the order of the fields."""

    cfg: float = 3.0  # guidance scale: 0 ignores the caption, 1 is the plain model
    temperature: float = 1.0  # 0 takes the most probable code
    top_k: int = 0  # keep so many codes; 0 keeps all
    top_p: float = 1.0  # then keep the most probable ones that together reach this probability
    pixel: BranchSampling = BranchSampling()
    semantic: BranchSampling = BranchSampling()

    def __post_init__(self) -> None:
        for name in ("pixel", "semantic"):
            setting, prefix = self.branch(name), "" if getattr(self, name) == BranchSampling() else f"{name}."
            if not (math.isfinite(setting.cfg) and setting.cfg >= 0):
                raise ValueError(f"{prefix}cfg={setting.cfg} must be a number from 0 up; 1 is no guidance.")
            if not (math.isfinite(setting.temperature) and setting.temperature >= 0):
                raise ValueError(f"{prefix}temperature={setting.temperature} must be a number from 0 up.")
            if setting.top_k < 0:
                raise ValueError(f"{prefix}top_k={setting.top_k} must be 0 (keep all) or more.")
            if not 0 < setting.top_p <= 1:
                raise ValueError(f"{prefix}top_p={setting.top_p} must be above 0 and at most 1.")

    def branch(self, name: str) -> "SamplingConfig | BranchSampling":
        """The settings of one codebook, none of them None."""
        own = getattr(self, name)
        chosen = {f.name: getattr(own, f.name) for f in fields(own)}
        return BranchSampling(**{key: getattr(self, key) if value is None else value for key, value in chosen.items()})

    @property
    def guided(self) -> bool:
        """Whether any codebook needs the unconditional rows."""
        return any(self.branch(name).cfg != 1 for name in ("pixel", "semantic"))


def uniforms(seeds: Sequence[int], *shape: int) -> Tensor:
    """float64[B, *shape] in [0, 1), row b from seed b alone; drawn on the CPU, so the same on every device."""
    rows = [torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in seeds]
    return torch.stack(rows)


def guide(logits: Tensor, cfg: float) -> Tensor:
    """[conditional; unconditional] float[2B, K] -> guided float[B, K]."""
    conditional, unconditional = logits.float().chunk(2)
    return conditional if cfg == 1 else torch.lerp(unconditional, conditional, cfg)


def draw(logits: Tensor, uniform: Tensor, setting: BranchSampling) -> Tensor:
    """One code per row: float[B, K] guided logits, float64[B] uniform numbers -> int64[B]."""
    if setting.temperature == 0:
        return logits.argmax(dim=-1)
    logits, order = logits.float() / setting.temperature, None
    if 0 < setting.top_k < logits.shape[-1]:
        logits, order = logits.topk(setting.top_k, dim=-1)
    elif setting.top_p < 1:
        logits, order = logits.sort(dim=-1, descending=True)
    # float64: a uniform number below 1 then never reaches past the last code that is possible.
    cumulative = logits.softmax(dim=-1, dtype=torch.float64).cumsum(dim=-1)
    total = cumulative[:, -1:]
    if setting.top_p < 1:
        # A code is kept while those before it have not reached top_p: the mass kept ends with the first that does.
        num_kept = (cumulative[:, :-1] < setting.top_p).sum(dim=-1, keepdim=True)
        total = cumulative.gather(1, num_kept)
    index = torch.searchsorted(cumulative, uniform.unsqueeze(1) * total, right=True)
    return (index if order is None else order.gather(1, index)).squeeze(1)


def sample_codes(
    head: DepthTransformer,
    hidden_states: Tensor,
    vectors_at: Callable[[Tensor, int], Tensor],
    uniform: Tensor,
    setting: BranchSampling,
) -> Tensor:
    """All D codes of one position, one depth after the other.

    hidden_states: float[B, E], or float[2B, E] with the unconditional rows in the second half; vectors_at: (codes
    int64[B], depth) -> their vectors float[B, C]; uniform: float64[B, D]. Returns int64[B, D].
    """
    num_images, guided = len(uniform), len(hidden_states) > len(uniform)
    state, cache = head.start(hidden_states)
    codes, code_sum = [], 0
    for depth in range(head.depth):
        if depth:
            code_sum = code_sum + vectors_at(codes[-1], depth - 1)
            state = head.step(code_sum.repeat(len(hidden_states) // num_images, 1), cache)
        logits = head.classifiers.logits(state, depth)
        codes.append(draw(guide(logits, setting.cfg) if guided else logits, uniform[:, depth], setting))
    return torch.stack(codes, dim=1)
