"""How a stage is spread over processes, and DeepSpeed's own dictionary of it; nothing here imports deepspeed."""

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class EngineConfig:
    zero_stage: int = 3
    precision: str = "fp32"  # fp32 | autocast: weights fp32, most products bf16 | bf16: both, with fp32 master weights
    matmul_precision: str = "auto"  # of fp32 products, see train/precision.py
    accumulation: int = 1  # micro-batches per step and rank
    offload_optimizer: bool = False  # its states to the CPU's memory
    offload_parameters: bool = False  # ZeRO-3 only
    persistence_threshold: int = 10_000  # ZeRO-3 keeps parameters smaller than this whole on every rank
    bucket_size: int = 50_000_000  # elements per reduction or gathering

    def __post_init__(self) -> None:
        if self.zero_stage not in (0, 1, 2, 3):
            raise ValueError(f"engine.zero_stage={self.zero_stage} is unknown; choose 0, 1, 2 or 3")
        if self.precision not in ("fp32", "autocast", "bf16"):
            raise ValueError(f"engine.precision={self.precision!r} is unknown; choose fp32, autocast or bf16")
        if self.accumulation < 1:
            raise ValueError(f"engine.accumulation={self.accumulation} must be at least 1")
        if self.offload_parameters and self.zero_stage != 3:
            raise ValueError("engine.offload_parameters=true needs engine.zero_stage=3")
        if self.offload_optimizer and self.zero_stage == 0:
            raise ValueError("engine.offload_optimizer=true needs engine.zero_stage=1, 2 or 3")

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    @property
    def gradient_dtype(self) -> torch.dtype:
        """In which the gradients of micro-batches are added up. In bf16, small ones would vanish beside the sum.

        Below stage 2 DeepSpeed cannot part it from the weights' (stage 0), or only by another optimizer (stage 1).
        """
        return torch.float32 if self.zero_stage >= 2 else self.dtype

    @property
    def compute_dtype(self) -> torch.dtype:
        """Of most products."""
        return torch.float32 if self.precision == "fp32" else torch.bfloat16


def deepspeed_config(
    config: EngineConfig, rows_per_batch: int, world_size: int, gradient_clipping: float = 0.0
) -> dict[str, Any]:
    """DeepSpeed's dictionary, from ours."""
    zero: dict[str, Any] = {
        "stage": config.zero_stage,
        "overlap_comm": torch.cuda.is_available(),  # nothing to overlap with where compute and reduction share cores
        "contiguous_gradients": True,
        "reduce_bucket_size": config.bucket_size,
    }
    if config.zero_stage == 3:
        zero |= {
            "stage3_param_persistence_threshold": config.persistence_threshold,
            "stage3_prefetch_bucket_size": config.bucket_size,
        }
    else:
        zero |= {"allgather_bucket_size": config.bucket_size}
    if config.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if config.offload_parameters:
        zero["offload_param"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {
        "train_micro_batch_size_per_gpu": rows_per_batch,
        "gradient_accumulation_steps": config.accumulation,
        "train_batch_size": rows_per_batch * config.accumulation * world_size,
        "gradient_clipping": gradient_clipping,
        "bf16": {"enabled": config.precision == "bf16"},
        "data_types": {"grad_accum_dtype": "fp32" if config.gradient_dtype == torch.float32 else None},
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,  # torch's AdamW: DeepSpeed's own compiles for a minute
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": None,
    }
