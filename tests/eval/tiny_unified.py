"""The smallest unified model that answers and draws: random weights, pictures of 16 pixels, four patches."""

import torch

from data.vocabulary import Vocabulary
from heads.config import DepthHeadConfig
from mllm.config import LLMConfig, UnifiedConfig, VisualSpec
from mllm.model import UnifiedModel
from mllm.pretrained import Unified
from tokenizer import DecoderConfig, DualTokenizer, QuantizerConfig, TokenizerConfig
from tokenizer.tower import VisionTower

CAPTION = "a red apple, 3d style"


def build(context: int = 512) -> Unified:
    """The same weights at each call; `context` tokens fit."""
    torch.manual_seed(0)
    quantizer = QuantizerConfig(code_dim=4, codebook_size=8, depth=3)
    decoder = DecoderConfig(in_channels=8, base_channels=8, channel_multipliers=[1, 1], num_res_blocks=1)
    config = TokenizerConfig(pixel_layer=1, semantic_layer=2, pixel=quantizer, semantic=quantizer, decoder=decoder)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokenizer = DualTokenizer(config, VisionTower({**sizes, "image_size": 16, "patch_size": 8})).freeze()
    vocabulary = Vocabulary.train([CAPTION, "What is this?"], 300)
    llm = LLMConfig(**sizes, num_key_value_heads=1, max_position_embeddings=context)
    config_of_all = UnifiedConfig(llm=llm, heads=DepthHeadConfig(num_layers=1, width=16, num_heads=2, mlp_width=32))
    model = UnifiedModel(config_of_all, VisualSpec.of(tokenizer), len(vocabulary), tokenizer.codebooks())
    return Unified(model.eval(), vocabulary, tokenizer)


def export(folder: str) -> None:
    """An exported model as `generate`, `chat` and `evaluate` read it."""
    model, vocabulary, tokenizer = build()
    model.save_pretrained(folder, vocabulary, tokenizer)
