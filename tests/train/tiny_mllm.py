"""The smallest world in which the unified model trains: a random tokenizer, random codes, captions and questions."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import torch.multiprocessing as mp

from data.codes import CodeWriter
from tokenizer import DecoderConfig, DualTokenizer, QuantizerConfig, TokenizerConfig
from tokenizer.tower import VisionTower
from train.config import build_config
from train.distributed import leave_world
from train.train_mllm import TrainMllmConfig

NUM_IMAGES = 24
TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def make_world(folder: Path) -> None:
    """tokenizer/, codes/ and questions.json; 2 × 2 positions, D = 3, K = 8."""
    datasets.disable_progress_bars()
    torch.manual_seed(0)
    quantizer = QuantizerConfig(code_dim=4, codebook_size=8, depth=3)
    decoder = DecoderConfig(in_channels=8, base_channels=8, channel_multipliers=[1, 1], num_res_blocks=1)
    config = TokenizerConfig(pixel_layer=1, semantic_layer=2, pixel=quantizer, semantic=quantizer, decoder=decoder)
    tokenizer = DualTokenizer(config, VisionTower({**TOWER, "image_size": 8, "patch_size": 4})).freeze()
    tokenizer.save_pretrained(str(folder / "tokenizer"))
    facts = {"tokenizer_id": tokenizer.tokenizer_id, "transform": "none", "num_patches": 4, "grid": [2, 2], "depth": 3}
    rng = np.random.default_rng(0)
    with CodeWriter(folder / "codes", {**facts, "codebook_size": 8, "source": "noise"}) as writer:
        for i in range(NUM_IMAGES):
            pixel, semantic = rng.integers(8, size=(2, 4, 3))
            writer.add(f"image-{i}", pixel, semantic, [f"a red apple number {i}", f"apple {i}"], {})
    questions = [
        {"from": "human", "value": "<image>\nIs the number of this apple even?"},
        {"from": "gpt", "value": "Yes"},
    ]
    records = [{"id": f"q{i}", "image": f"image-{i}", "conversations": questions} for i in range(NUM_IMAGES)]
    (folder / "questions.json").write_text(json.dumps(records))


def tiny_document(folder: Path, **changes: Any) -> dict[str, Any]:
    """A config as YAML would give it; `changes` replace top-level keys."""
    codes = str(folder / "codes")
    sources = [
        {"kind": "caption", "codes": codes},
        {"kind": "draw", "codes": codes, "caption_dropout": 0.1},
        {"kind": "conversation", "codes": codes, "path": str(folder / "questions.json")},
    ]
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    llm = {**sizes, "num_key_value_heads": 1, "max_position_embeddings": 256}
    heads = {"num_layers": 1, "width": 16, "num_heads": 2, "mlp_width": 32}
    return {
        "out": str(folder / "run"),
        "tokenizer": str(folder / "tokenizer"),
        "vocabulary_size": 400,
        "model": {"llm": llm, "heads": heads},
        "data": {"sources": sources, "context_length": 96, "rows_per_batch": 2, "pack_window": 8},
        # Threshold 0: every parameter is partitioned, as at full size.
        "engine": {"persistence_threshold": 0, "accumulation": 2, "matmul_precision": "fp32"},
        "optimizer": {"learning_rate": 1e-3, "weight_decay": 0.1},
        "schedule": {"warmup": 2},
        "loop": {"steps": 6, "log_every": 1, "checkpoint_every": 2},
        **changes,
    }


def tiny_config(folder: Path, **changes: Any) -> TrainMllmConfig:
    return build_config(TrainMllmConfig, [tiny_document(folder, **changes)], "tiny")


def run_ranks(function: Callable[..., None], num_ranks: int, *arguments: Any) -> None:
    """`function(*arguments)` in `num_ranks` processes with torchrun's environment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    mp.start_processes(_in_rank, (function, num_ranks, port, arguments), num_ranks, start_method="spawn")


def _in_rank(rank: int, function: Callable[..., None], num_ranks: int, port: int, arguments: tuple[Any, ...]) -> None:
    # As if every core had its process: one thread each, for the models here are tiny.
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_ranks, "LOCAL_WORLD_SIZE": os.cpu_count()}
    os.environ |= {name: str(value) for name, value in names.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    function(*arguments)
    leave_world()
