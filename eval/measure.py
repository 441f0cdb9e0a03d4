"""What is measured of each picture; what it says of a whole set is in eval/tokenizer_figures.py."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.image_batches import describe
from data.images import ImageTransform
from data.shards import RawSample
from eval.fid import FidFeatures, levels
from eval.judge import Judge
from eval.reconstruction import from_pixel_values, psnr, ssim
from tokenizer import BRANCHES, DualTokenizer
from tokenizer.code_use import count_codes
from tokenizer.perceptual import build_lpips


@dataclass(frozen=True)
class Instruments:
    """A tokenizer and what judges it, all on one device."""

    tokenizer: DualTokenizer
    judge: Judge
    lpips: nn.Module | None
    fid: FidFeatures | None
    tower_distance: bool = False

    @torch.no_grad()
    def measure(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """float[B, 3, h, w] in [−1, 1] → on the CPU:

        psnr, ssim, lpips, tower_distance [B]     of the reconstruction from pixel codes, at 8 bits
        quantized, tower                [B, d]    normalised image features: of the semantic codes, of the tower
        fid.PROTOCOL.reference, …       [B, 2048] Inception features, `fid.PROTOCOL.reconstruction` likewise
        pixel_counts, semantic_counts   [G, K]    how often each entry is used by all of them
        """
        pixel_values = pixel_values.to(self.judge.model.device)
        codes = self.tokenizer.encode(pixel_values)
        decoded = self.tokenizer.decode(codes.pixel).float()
        pair = from_pixel_values(pixel_values), from_pixel_values(decoded)
        values = {"psnr": psnr(*pair), "ssim": ssim(*pair), **self.features(pixel_values, codes.semantic)}
        if self.tower_distance:
            values["tower_distance"] = self.judge.distance(pixel_values, levels(decoded).float() / 127.5 - 1)
        if self.lpips is not None:
            values["lpips"] = self.lpips(levels(decoded).float() / 127.5 - 1, pixel_values).flatten()
        for side, pictures in (("reference", pixel_values), ("reconstruction", decoded)):
            features = self.fid(pictures) if self.fid is not None else {}
            values |= {f"fid.{protocol}.{side}": value for protocol, value in features.items()}
        for branch in BRANCHES:
            quantizer = getattr(self.tokenizer, f"{branch}_quantizer")
            values[f"{branch}_counts"] = count_codes(quantizer, getattr(codes, branch))
        return {name: value.cpu() for name, value in values.items()}

    @torch.no_grad()
    def features(self, pixel_values: Tensor, semantic_codes: Tensor | None = None) -> dict[str, Tensor]:
        """`quantized` and `tower` alone; the codes int64[B, N, D] are made where they are not at hand."""
        pixel_values = pixel_values.to(self.judge.model.device)
        if semantic_codes is None:
            semantic_codes = self.tokenizer.encode(pixel_values).semantic
        quantized = F.normalize(self.tokenizer.pooled_features(semantic_codes).float(), dim=-1)
        return {"quantized": quantized, "tower": self.judge.images(pixel_values)}

    def measure_all(
        self,
        samples: Iterator[tuple[int, RawSample]],
        transform: ImageTransform,
        batch_size: int,
        progress: Callable[[int], Any],
    ) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
        """At least one picture with its place → the metadata of each, `place` among them, and `measure` of all."""
        described: list[dict[str, Any]] = []
        batches: list[dict[str, Tensor]] = []
        while batch := list(islice(samples, batch_size)):
            batches.append(self.measure(torch.stack([transform(sample.image) for _, sample in batch])))
            described += [{**describe(sample), "place": place} for place, sample in batch]
            progress(len(batch))
        values = {name: [batch[name] for batch in batches] for name in batches[0]}
        return described, {
            name: torch.stack(parts).sum(0) if name.endswith("_counts") else torch.cat(parts)
            for name, parts in values.items()
        }


def load_lpips(weights: str | None) -> nn.Module:
    """LPIPS on VGG16; None: torchvision's cache. Raises FileNotFoundError or ValueError."""
    try:
        return build_lpips(weights)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"LPIPS needs torchvision's VGG16 weights, which are not in {weights or 'its cache'}: set lpips_weights to "
            "a file vgg16-397923af.pth, or lpips=false"
        ) from error
