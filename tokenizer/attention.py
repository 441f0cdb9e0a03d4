"""Kernels of attention, by the names that transformers gives them."""

import torch
from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available


def resolve_attention(name: str, required: bool = True) -> str:
    """`auto` is flash_attention_2 where CUDA and flash-attn are at hand, else sdpa; other names stay.

    Flash attention that is not at hand is a ValueError or, where it is not `required`, as `auto`: a model that was
    trained with it is read anywhere.
    """
    packages = {"flash_attention_2": is_flash_attn_2_available, "flash_attention_3": is_flash_attn_3_available}
    at_hand = [kernel for kernel, is_installed in packages.items() if torch.cuda.is_available() and is_installed()]
    if name in packages and name not in at_hand:
        if required:
            raise ValueError(
                f"attention {name} needs a CUDA GPU and its package, flash-attn (pip install --no-build-isolation "
                "-e '.[cuda]'), which are not at hand: install it, or choose sdpa."
            )
        name = "auto"
    if name != "auto":
        return name
    return "flash_attention_2" if "flash_attention_2" in at_hand else "sdpa"
