"""How pictures become Inception features: the protocols under which reconstruction FID is published (paper Tab. 1).

The tools share weights and Fréchet arithmetic; they differ in how a picture is brought to 299 × 299 and to [−1, 1], by
enough to change the third digit. Results are compared within a protocol only, so each has its tool's name:

    clean           clean-fid: Pillow's bicubic with antialiasing, in floating point, clamped; (x − 128) / 128
    pytorch-fid     bilinear without antialiasing, half-pixel centres; 2x / 255 − 1
    torch-fidelity  bilinear as TensorFlow 1 did it, corners aligned at the origin; (x − 128) / 128
    dualtoken-jpeg  the authors' released evaluation: both pictures cut to 8 bits and through JPEG first, then `clean`
"""

from collections.abc import Callable, Sequence
from io import BytesIO

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from eval.inception import INPUT_SIZE, load_fid_inception

JPEG_QUALITY = 95  # OpenCV's default, with which the authors save


def levels(pixel_values: Tensor) -> Tensor:
    """float[B, 3, h, w] in [−1, 1] → uint8[B, 3, h, w], rounded; what a file held is uint8 and stays as it is."""
    if pixel_values.dtype == torch.uint8:
        return pixel_values
    return ((pixel_values.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def clean(pixel_values: Tensor) -> Tensor:
    return _clean(levels(pixel_values))


def pytorch_fid(pixel_values: Tensor) -> Tensor:
    x = levels(pixel_values).float() / 255
    return 2 * F.interpolate(x, (INPUT_SIZE, INPUT_SIZE), mode="bilinear", align_corners=False) - 1


def torch_fidelity(pixel_values: Tensor) -> Tensor:
    x = levels(pixel_values).float()
    return (_tensorflow1_bilinear(_tensorflow1_bilinear(x, dim=3), dim=2) - 128) / 128


def dualtoken_jpeg(pixel_values: Tensor) -> Tensor:
    exact = pixel_values.dtype == torch.uint8
    cut = pixel_values if exact else ((pixel_values.float() + 1) * 127.5).clamp(0, 255).to(torch.uint8)  # as they
    pictures = [_through_jpeg(picture) for picture in cut.permute(0, 2, 3, 1).cpu().numpy()]
    return _clean(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).to(pixel_values.device))


PROTOCOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "clean": clean,
    "pytorch-fid": pytorch_fid,
    "torch-fidelity": torch_fidelity,
    "dualtoken-jpeg": dualtoken_jpeg,
}
"""Each: float[B, 3, h, w] in [−1, 1], or uint8 → float[B, 3, 299, 299], the input of the network."""


class FidFeatures(nn.Module):
    """Pictures float[B, 3, h, w] in [−1, 1] → Inception features float[B, 2048] under each of some protocols."""

    def __init__(self, weights: str, protocols: Sequence[str]):
        """`weights`: the user's file. Raises FileNotFoundError or ValueError."""
        super().__init__()
        if unknown := [name for name in protocols if name not in PROTOCOLS]:
            raise ValueError(f"there is no FID protocol {unknown[0]!r}: choose among {', '.join(PROTOCOLS)}")
        self.protocols, self.net = list(protocols), load_fid_inception(weights)

    @torch.no_grad()
    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        return {name: self.net(PROTOCOLS[name](pixel_values)) for name in self.protocols}


def _clean(pictures: Tensor) -> Tensor:
    """uint8[B, 3, h, w] → float[B, 3, 299, 299]; on the CPU, because no other library scales exactly like Pillow."""
    channels = pictures.flatten(0, 1).cpu().numpy().astype(np.float32)
    size = (INPUT_SIZE, INPUT_SIZE)
    scaled = [np.asarray(Image.fromarray(channel).resize(size, Image.Resampling.BICUBIC)) for channel in channels]
    x = torch.from_numpy(np.stack(scaled)).clamp(0, 255).unflatten(0, (-1, 3))
    return (x.to(pictures.device) - 128) / 128


def _tensorflow1_bilinear(x: Tensor, dim: int) -> Tensor:
    """One dimension of float[B, 3, h, w] → 299: output i looks at i · length / 299, half pixels left aside."""
    length = x.shape[dim]
    place = torch.arange(INPUT_SIZE, dtype=torch.float32, device=x.device) * (length / INPUT_SIZE)
    low = place.long()
    near, far = x.index_select(dim, low), x.index_select(dim, (low + 1).clamp(max=length - 1))
    weight = (place - low).view([-1 if d == dim else 1 for d in range(4)])
    return near + (far - near) * weight


def _through_jpeg(picture: np.ndarray) -> np.ndarray:
    """uint8[h, w, 3] → the same, as a JPEG file with halved colour resolution gives it back."""
    file = BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=JPEG_QUALITY, subsampling="4:2:0")
    return np.asarray(Image.open(file).convert("RGB"))
