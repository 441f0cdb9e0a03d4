"""A unified model ready for use: on the accelerator where there is one."""

from pathlib import Path

import torch

from mllm.pretrained import Unified, load_unified


def load(name: str | Path) -> Unified:
    """Model, vocabulary and tokenizer of an exported folder or hub id; raises FileNotFoundError or ValueError."""
    return load_unified(name, device="cuda" if torch.cuda.is_available() else "cpu")
