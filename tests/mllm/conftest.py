"""A tiny unified model, and batches packed by hand."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from data.batch import Batch
from data.vocabulary import Vocabulary
from heads.config import DepthHeadConfig
from mllm.config import LLMConfig, UnifiedConfig, VisualSpec
from mllm.model import UnifiedModel
from tokenizer import Codebooks, DecoderConfig, DualTokenizer, QuantizerConfig, TokenizerConfig
from tokenizer.projection import AttentionProjection
from tokenizer.tower import VisionTower

IGNORE = -100
N, D, K, C, H = 4, 3, 8, 4, 12
SPEC = VisualSpec(grid=(2, 2), depth=D, codebook_size=K, code_dim=C, tokenizer_id="tok")
LLM = LLMConfig(
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    attn_implementation="sdpa",
)
HEADS = DepthHeadConfig(num_layers=2, width=16, num_heads=2, mlp_width=32)
TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
OTHER_HEADS = DepthHeadConfig(  # every option, and a width that is not the language model's
    num_layers=2, width=24, num_heads=2, mlp_width=32, mlp_per_depth=True, code_embedding="learned_per_depth"
)


@dataclass
class Document:
    ids: list[int]
    labels: list[int]
    generated: bool = False  # whether its image is a target


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return Vocabulary.train(["Draw: a red apple, 3d style", "What is this? A waving hand."] * 3, 320)


@pytest.fixture
def tokenizer() -> DualTokenizer:
    """2 x 2 positions, D = 3, K = 8, C = 4."""
    torch.manual_seed(0)
    quantizer = QuantizerConfig(code_dim=4, codebook_size=8, depth=3)
    decoder = DecoderConfig(in_channels=8, base_channels=8, channel_multipliers=[1, 1], num_res_blocks=1)
    config = TokenizerConfig(pixel_layer=1, semantic_layer=2, pixel=quantizer, semantic=quantizer, decoder=decoder)
    return DualTokenizer(config, VisionTower({**TOWER, "image_size": 8, "patch_size": 4})).freeze()


@pytest.fixture
def make_model(vocabulary) -> Callable[..., UnifiedModel]:
    """make_model(num_books=1, **changes of UnifiedConfig): always the same weights, larger than usual, so that no two
    inputs give nearly the same output."""

    def make(num_books: int = 1, **changes) -> UnifiedModel:
        torch.manual_seed(0)
        codebooks = Codebooks(torch.randn(num_books, K, C), 0.1 * torch.randn(num_books, K, C))
        if changes.get("visual_features") == "post_quant":
            codebooks = codebooks._replace(pixel_out=AttentionProjection(C, H), semantic_out=AttentionProjection(C, H))
        config = UnifiedConfig(**{"llm": LLM, "heads": HEADS, **changes})
        model = UnifiedModel(config, SPEC, len(vocabulary), codebooks)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        return model

    return make


@pytest.fixture
def model(make_model) -> UnifiedModel:
    return make_model()


@pytest.fixture
def documents(vocabulary) -> dict[str, Document]:
    """One that draws, one that answers about an image, one of text."""
    image, end = [vocabulary.image_pad] * N, [vocabulary.im_end]
    prompt, tail = vocabulary.drawing_prompt("a red apple"), [vocabulary.vision_end, *end]
    draw = Document(prompt + image + tail, [IGNORE] * (len(prompt) - 1) + prompt[-1:] + [IGNORE] * N + tail, True)
    prompt, tail = vocabulary.answering_prompt("What is this?", N), vocabulary.encode("A hand.") + end
    ask = Document(prompt + tail, [IGNORE] * len(prompt) + tail)
    ids = vocabulary.encode("a waving hand, 3d style") + end
    return {"draw": draw, "ask": ask, "text": Document(ids, [IGNORE, *ids[1:]])}


@pytest.fixture
def pack(vocabulary) -> Callable[[list[list[Document]]], Batch]:
    """Rows of documents, padded with a document of their own; the images' codes depend on their order only."""

    def make(rows: list[list[Document]]) -> Batch:
        length = max(sum(len(document.ids) for document in row) for row in rows)
        lines = []
        for row in rows:
            padding = length - sum(len(document.ids) for document in row)
            ends = [*row, Document([vocabulary.endoftext] * padding, [IGNORE] * padding)]
            ids = [i for document in ends for i in document.ids]
            lines.append(
                (
                    ids,
                    [label for document in ends for label in document.labels],
                    [p for document in ends for p in range(len(document.ids))],
                    [i == vocabulary.image_pad for i in ids],
                    [i == vocabulary.image_pad and document.generated for document in ends for i in document.ids],
                )
            )
        ids, labels, positions, image_mask, target_mask = map(torch.tensor, zip(*lines, strict=True))
        codes = torch.randint(K, (2, int(image_mask.sum()) // N, N, D), generator=torch.Generator().manual_seed(0))
        return Batch(codes[0], codes[1], ids, positions, labels, image_mask, target_mask, [])

    return make
