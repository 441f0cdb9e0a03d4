from dataclasses import replace

import pytest
import torch

from tokenizer import DecoderConfig, DualTokenizer, QuantizerConfig, TokenizerConfig
from tokenizer.tower import VisionTower

TOWER = dict(
    hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=4
)


def tiny_config(**changes) -> TokenizerConfig:
    quantizer = QuantizerConfig(code_dim=4, codebook_size=8, depth=3)
    decoder = DecoderConfig(in_channels=8, base_channels=8, channel_multipliers=[1, 1, 2], num_res_blocks=1)
    config = TokenizerConfig(pixel_layer=1, semantic_layer=2, pixel=quantizer, semantic=quantizer, decoder=decoder)
    return replace(config, **changes)


@pytest.fixture
def tokenizer() -> DualTokenizer:
    torch.manual_seed(0)
    return DualTokenizer(tiny_config(), VisionTower(TOWER)).eval()


@pytest.fixture
def pixel_values() -> torch.Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
