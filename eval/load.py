"""A unified model ready for use: on the accelerator where there is one."""

from pathlib import Path

import torch

from mllm.pretrained import Unified, load_unified


def load(folder: str | Path) -> Unified:
    """The model, vocabulary and tokenizer of an exported folder; raises FileNotFoundError or ValueError."""
    unified = load_unified(folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Unified(unified.model.to(device), unified.vocabulary, unified.tokenizer.to(device))
