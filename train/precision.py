"""How matrix products are computed. Weights, optimizer states and everything that is saved stay fp32 either way.

CPUs with AMX multiply bf16 several times faster than fp32 (measured on one such two-core machine: 4 × for fp32 GEMMs
whose inputs are rounded inside, 8 × for bf16 ones). `auto` uses what the machine has; other CPUs compute in plain fp32.
Code that needs exact products (distances of the quantizer) asks for them itself.
"""

import torch

PRECISIONS = ("auto", "fp32")


def set_matmul_precision(precision: str = "auto") -> None:
    """`auto`: the fastest fp32 products here (TF32 on CUDA, bf16 inside on CPUs that have it); `fp32`: exact."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} is unknown; choose one of {', '.join(PRECISIONS)}")
    fast = precision == "auto"
    torch.backends.mkldnn.matmul.fp32_precision = "bf16" if fast else "ieee"  # type: ignore[attr-defined]
    torch.backends.mkldnn.conv.fp32_precision = "bf16" if fast else "ieee"  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = "tf32" if fast else "ieee"
    torch.backends.cudnn.conv.fp32_precision = "tf32" if fast else "ieee"  # type: ignore[attr-defined]


def autocast(precision: str, device_type: str) -> torch.autocast:
    """bf16 autocast where `auto` finds hardware for it (CUDA, AMX), else a context that does nothing."""
    fast = device_type == "cuda" or torch.cpu._is_amx_tile_supported()
    return torch.autocast(device_type, torch.bfloat16, enabled=precision == "auto" and fast)
