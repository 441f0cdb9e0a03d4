"""The smallest world in which the tokenizer trains: a random tower in a folder, twelve pictures in a tar."""

import json
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests.tokenizer.conftest import TOWER
from tokenizer.tower import VisionTower
from train.config import build_config
from train.train_tokenizer import TrainTokenizerConfig

NUM_IMAGES = 12


def make_world(folder: Path) -> None:
    """tower/ (3 layers, 4×4 patches of 16 px) and pictures.tar."""
    torch.manual_seed(0)
    VisionTower(TOWER).model.save_pretrained(folder / "tower")
    rng = np.random.default_rng(0)
    with tarfile.open(folder / "pictures.tar", "w") as tar:
        for i in range(NUM_IMAGES):
            picture = BytesIO()
            coarse = Image.fromarray(rng.integers(256, size=(4, 4, 3), dtype=np.uint8))
            coarse.resize((16, 16), Image.Resampling.BICUBIC).save(picture, "png")
            caption = json.dumps({"caption": f"picture {i}"}).encode()
            for ending, content in (("png", picture.getvalue()), ("json", caption)):
                member = tarfile.TarInfo(f"{i}.{ending}")
                member.size = len(content)
                tar.addfile(member, BytesIO(content))


def tiny_document(folder: Path, **changes: Any) -> dict[str, Any]:
    """A config as YAML would give it, with everything on that fits; `changes` replace top-level keys."""
    quantizer = {"code_dim": 4, "codebook_size": 8, "depth": 3}
    decoder = {"in_channels": 8, "base_channels": 8, "channel_multipliers": [1, 1, 2], "num_res_blocks": 1}
    return {
        "out": str(folder / "run"),
        "tokenizer": {
            "tower": str(folder / "tower"),
            "pixel_layer": 1,
            "semantic_layer": 2,
            "pixel": {**quantizer, "ema_update": "per_depth"},
            "semantic": {**quantizer, "restart_below": 4.0},  # above what is reached: entries restart at every step
            "decoder": decoder,
        },
        "loss": {"perceptual": 0.0},
        "adversarial": {"weight": 0.75, "start": 3, "base_channels": 8},
        "data": {"shards": str(folder / "pictures.tar"), "batch_size": 3},
        "validation": str(folder / "pictures.tar"),
        "sample_every": 4,
        "accumulation": 2,
        "ema": {"decay": 0.9},
        "loop": {"steps": 8, "log_every": 2, "checkpoint_every": 3},
        "precision": "fp32",
        **changes,
    }


def tiny_config(folder: Path, **changes: Any) -> TrainTokenizerConfig:
    return build_config(TrainTokenizerConfig, [tiny_document(folder, **changes)], "tiny")
