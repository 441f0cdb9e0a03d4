"""Between pictures and the codes of a model: read, drawn, and half drawn."""

import torch
from PIL import Image
from torch import Tensor

from data.images import ImageTransform, to_pil
from mllm.pretrained import Unified
from tokenizer import DualCodes, DualTokenizer


def encode_picture(unified: Unified, picture: Image.Image) -> DualCodes:
    """int64[N, D] per branch, as the tokenizer's training saw pictures."""
    transform = ImageTransform(unified.tokenizer.image_size, unified.tokenizer.config.crop)
    codes = unified.tokenizer.encode(transform(picture).unsqueeze(0).to(unified.model.device))
    return DualCodes(*(part[0] for part in codes))


def decode_picture(unified: Unified, codes: DualCodes) -> Image.Image:
    """int64[p, D] per branch -> the picture; what is not drawn yet has the mean colour of what is."""
    return to_pil(preview(unified.tokenizer, codes.pixel.unsqueeze(0))[0])


def preview(tokenizer: DualTokenizer, pixel_codes: Tensor) -> Tensor:
    """The first p patches, int64[B, p, D] -> float[B, 3, h, w] in [−1, 1].

    Missing patches take the codes of the last one above them while decoding, so that the edge looks as it will, and are
    then painted over with the mean colour of the others; without any patch all is grey.
    """
    (down, across), num_done = tokenizer.grid, pixel_codes.shape[1]
    size = tokenizer.image_size
    if num_done == 0:
        return torch.zeros(len(pixel_codes), 3, size, size, device=pixel_codes.device)
    patches = torch.arange(down * across, device=pixel_codes.device)
    missing = patches >= num_done
    above = patches - (patches - num_done + across).div(across, rounding_mode="floor") * across
    source = torch.where(missing, above.where(above >= 0, num_done - 1), patches)
    images = tokenizer.decode(pixel_codes[:, source])
    is_missing = missing.view(1, 1, down, across).float()
    is_missing = torch.nn.functional.interpolate(is_missing, images.shape[-2:], mode="nearest")
    mean = (images * (1 - is_missing)).sum((2, 3), keepdim=True) / (1 - is_missing).sum()
    return torch.where(is_missing.bool(), mean, images)
