"""Sampling one code (arXiv 2503.14324, section 3.3): guidance, temperature, top-k, top-p, one draw.

Classifier-free guidance acts on the logits of every depth: u + cfg (c - u). Each code is drawn by inverting the
cumulative distribution at one uniform number, and an image's uniform numbers come from its own seed: what an image
becomes does not depend on the images it is drawn with.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, NamedTuple

import torch
from torch import Tensor

PerDepth = Any  # a number, or a list of one for each depth; OmegaConf has no type that says so
BRANCHES = ("pixel", "semantic")
CURVES: dict[str, Callable[[Tensor], Tensor]] = {  # how far from `cfg` to `cfg_last`, over [0, 1]
    "linear": lambda progress: progress,
    "cosine": lambda progress: (1 - torch.cos(math.pi * progress)) / 2,
}
GREEDY_BELOW = 1e-6  # a temperature: divided by less, logits overflow, and such a draw takes the likeliest code anyway
RUNTIMES = ("eager", "static", "compile")


@dataclass(frozen=True)
class BranchSampling:
    """What one codebook does differently; None is the setting of both."""

    cfg: float | None = None
    cfg_last: float | None = None
    temperature: PerDepth = None
    top_k: PerDepth = None
    top_p: PerDepth = None


class DrawSettings(NamedTuple):
    """The settings of one draw."""

    temperature: float
    top_k: int
    top_p: float


@dataclass(frozen=True)
class SamplingConfig:
    """How codes are drawn, and what a codebook does differently."""

    cfg: float = 3.0  # guidance scale: 0 ignores the caption, 1 is the plain model
    cfg_last: float | None = None  # the scale at the last patch, where `cfg` is that at the first; null: `cfg`
    cfg_curve: str = "linear"  # from one to the other: linear or cosine
    temperature: PerDepth = 1.0  # 0 takes the most probable code
    top_k: PerDepth = 0  # keep so many codes; 0 keeps all
    top_p: PerDepth = 1.0  # then keep the most probable ones that together reach this probability
    pixel: BranchSampling = field(default_factory=BranchSampling)
    semantic: BranchSampling = field(default_factory=BranchSampling)
    runtime: str = "eager"  # static: a cache whose shapes never change; compile: and its steps compiled

    def __post_init__(self) -> None:
        for name, known in (("cfg_curve", tuple(CURVES)), ("runtime", RUNTIMES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r} is unknown: choose {', '.join(known)}.")
        for branch in BRANCHES:
            for name in ("cfg", "cfg_last"):
                scale = self._setting(branch, name)
                if scale is not None and not (_is_number(scale) and scale >= 0):
                    raise ValueError(f"{name}={scale} for {branch} codes must be a number from 0 up; 1 is no guidance.")
            for name in DrawSettings._fields:
                value = self._setting(branch, name)
                for number in value if isinstance(value, Sequence) and not isinstance(value, str) else [value]:
                    check_setting(name, number, f" for {branch} codes")

    def guidance(self, branch: str, num_patches: int) -> Tensor:
        """float32[N], the scale at each patch."""
        first, last = self._setting(branch, "cfg"), self._setting(branch, "cfg_last")
        progress = CURVES[self.cfg_curve](torch.linspace(0, 1, num_patches))
        return first + progress * ((first if last is None else last) - first)

    def draws(self, branch: str, depth: int) -> list[DrawSettings]:
        """The settings of each depth; a list of another length than `depth` is a ValueError."""
        columns = []
        for name in DrawSettings._fields:
            value = self._setting(branch, name)
            values = [value] * depth if _is_number(value) else list(value)
            if len(values) != depth:
                raise ValueError(
                    f"{name}={values} for {branch} codes has {len(values)} entries, but an image has {depth} depths: "
                    "give one for each, or a single number."
                )
            columns.append(values)
        return [DrawSettings(temperature, int(k), p) for temperature, k, p in zip(*columns, strict=True)]

    @property
    def guided(self) -> bool:
        """Whether any codebook needs the unconditional rows."""
        scales = [self._setting(branch, name) for branch in BRANCHES for name in ("cfg", "cfg_last")]
        return any(scale not in (None, 1) for scale in scales)

    def _setting(self, branch: str, name: str) -> Any:
        own = getattr(getattr(self, branch), name)
        return getattr(self, name) if own is None else own


def check_setting(name: str, value: Any, where: str = "") -> None:
    """Raises ValueError unless `value` is a temperature, top_k or top_p."""
    rules = {
        "temperature": (lambda x: x >= 0, "a number from 0 up"),
        "top_k": (lambda x: x >= 0 and x == int(x), "a whole number, at least 0, which keeps all"),
        "top_p": (lambda x: 0 < x <= 1, "above 0 and at most 1"),
    }
    holds, rule = rules[name]
    if not (_is_number(value) and holds(value)):
        raise ValueError(f"{name}={value}{where} must be {rule}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def check_seed(seed: Any) -> None:
    """Raises ValueError for a seed that no generator takes."""
    if not (isinstance(seed, Integral) and 0 <= seed < 2**63):  # type: ignore[operator]
        raise ValueError(f"seed {seed} must be a whole number from 0 up, below 2**63.")


def uniforms(seeds: Sequence[int], *shape: int) -> Tensor:
    """float64[B, *shape] in [0, 1), row b from seed b alone; drawn on the CPU, so the same on every device."""
    for seed in seeds:
        check_seed(seed)
    generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
    return torch.stack([torch.rand(shape, generator=generator, dtype=torch.float64) for generator in generators])


def guide(logits: Tensor, cfg: Tensor) -> Tensor:
    """[conditional; unconditional] float[2B, K], a scale float32[] -> guided float[B, K]."""
    conditional, unconditional = logits.float().chunk(2)
    return torch.lerp(unconditional, conditional, cfg)


def draw(logits: Tensor, uniform: Tensor, settings: DrawSettings) -> Tensor:
    """One code per row: float[B, K] guided logits, float64[B] uniform numbers -> int64[B]."""
    if settings.temperature < GREEDY_BELOW:
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
