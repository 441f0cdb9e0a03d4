"""Sampling the D codes of a position (arXiv 2503.14324, section 3.3): guidance, temperature, top-k, top-p, one draw.

Classifier-free guidance acts on the logits of every depth: u + cfg (c - u). Each code is drawn by inverting the
cumulative distribution at one uniform number, and an image's uniform numbers come from its own seed: what an image
becomes does not depend on the images it is drawn with.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from heads.depth_transformer import DepthTransformer


@dataclass(frozen=True)
class BranchSampling:
    """What one codebook does differently; None is the setting of both."""

    cfg: float | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None


class DrawSettings(NamedTuple):
    """The settings that hold for one codebook."""

    cfg: float
    temperature: float
    top_k: int
    top_p: float


@dataclass(frozen=True)
class SamplingConfig:
    """How codes are drawn: the first four fields in their order, then what a codebook does differently."""

    cfg: float = 3.0  # guidance scale: 0 ignores the caption, 1 is the plain model
    temperature: float = 1.0  # 0 takes the most probable code
    top_k: int = 0  # keep so many codes; 0 keeps all
    top_p: float = 1.0  # then keep the most probable ones that together reach this probability
    pixel: BranchSampling = field(default_factory=BranchSampling)
    semantic: BranchSampling = field(default_factory=BranchSampling)

    def __post_init__(self) -> None:
        for name in ("pixel", "semantic"):
            cfg, temperature, top_k, top_p = self.branch(name)
            if not (math.isfinite(cfg) and cfg >= 0):
                raise ValueError(f"cfg={cfg} for {name} codes must be a number from 0 up; 1 is no guidance.")
            if not (math.isfinite(temperature) and temperature >= 0):
                raise ValueError(f"temperature={temperature} for {name} codes must be a number from 0 up.")
            if top_k < 0:
                raise ValueError(f"top_k={top_k} for {name} codes must be at least 0, which keeps all.")
            if not 0 < top_p <= 1:
                raise ValueError(f"top_p={top_p} for {name} codes must be above 0 and at most 1.")

    def branch(self, name: str) -> DrawSettings:
        """The settings of the `pixel` or of the `semantic` codes."""
        own = asdict(getattr(self, name))
        return DrawSettings(**{key: getattr(self, key) if value is None else value for key, value in own.items()})

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


def draw(logits: Tensor, uniform: Tensor, settings: DrawSettings) -> Tensor:
    """One code per row: float[B, K] guided logits, float64[B] uniform numbers -> int64[B]."""
    if settings.temperature == 0:
        return logits.argmax(dim=-1)
    logits, order = logits.float() / settings.temperature, None
    if 0 < settings.top_k < logits.shape[-1]:
        logits, order = logits.topk(settings.top_k, dim=-1)
    elif settings.top_p < 1:
        logits, order = logits.sort(dim=-1, descending=True)
    # float64: a uniform number below 1 then never reaches past the last code that is possible.
    cumulative = logits.softmax(dim=-1, dtype=torch.float64).cumsum(dim=-1)
    total = cumulative[:, -1:]
    if settings.top_p < 1:
        # A code is kept while those before it have not reached top_p: the mass kept ends with the first that does.
        num_kept = (cumulative[:, :-1] < settings.top_p).sum(dim=-1, keepdim=True)
        total = cumulative.gather(1, num_kept)
    index = torch.searchsorted(cumulative, uniform.unsqueeze(1) * total, right=True)
    return (index if order is None else order.gather(1, index)).squeeze(1)


def sample_codes(
    head: DepthTransformer,
    hidden_states: Tensor,
    vectors_at: Callable[[Tensor, int], Tensor],
    uniform: Tensor,
    settings: DrawSettings,
) -> Tensor:
    """All D codes of one position, one depth after the other.

    hidden_states: float[B, E], or float[2B, E] with the unconditional rows in the second half; vectors_at: (codes
    int64[B], depth) -> their vectors float[B, C]; uniform: float64[B, D]. Returns int64[B, D].
    """
    num_images, guided = len(uniform), len(hidden_states) > len(uniform)
    state, cache = head.start(hidden_states)
    codes = torch.empty(num_images, head.depth, dtype=torch.int64, device=hidden_states.device)
    code_sum = torch.zeros((), device=hidden_states.device)
    for depth in range(head.depth):
        if depth:
            code_sum = code_sum + vectors_at(codes[:, depth - 1], depth - 1)
            state = head.step(code_sum.repeat(len(hidden_states) // num_images, 1), cache)
        logits = head.classifiers.logits(state, depth)
        codes[:, depth] = draw(guide(logits, settings.cfg) if guided else logits, uniform[:, depth], settings)
    return codes
