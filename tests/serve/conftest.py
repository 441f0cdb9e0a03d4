"""A tiny unified model with random weights (pictures of 16 pixels, 4 patches), and an engine around it."""

from collections.abc import Callable, Iterator
from threading import Thread
from typing import NamedTuple

import pytest
import torch
import uvicorn

from data.vocabulary import Vocabulary
from heads.config import DepthHeadConfig
from mllm.config import LLMConfig, UnifiedConfig, VisualSpec
from mllm.model import UnifiedModel
from mllm.pretrained import Unified
from serve.app import Api
from serve.config import Limits
from serve.engine import Engine
from serve.metrics import Metrics
from serve.server import listen
from tokenizer import DecoderConfig, DualTokenizer, QuantizerConfig, TokenizerConfig
from tokenizer.tower import VisionTower


@pytest.fixture(scope="session")
def unified() -> Unified:
    torch.manual_seed(0)
    quantizer = QuantizerConfig(code_dim=4, codebook_size=8, depth=3)
    decoder = DecoderConfig(in_channels=8, base_channels=8, channel_multipliers=[1, 1], num_res_blocks=1)
    config = TokenizerConfig(pixel_layer=1, semantic_layer=2, pixel=quantizer, semantic=quantizer, decoder=decoder)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokenizer = DualTokenizer(config, VisionTower({**sizes, "image_size": 16, "patch_size": 8})).freeze()
    vocabulary = Vocabulary.train(["a red apple, 3d style", "What is this?"], 300)
    llm = LLMConfig(**sizes, num_key_value_heads=1, max_position_embeddings=128)
    unified_config = UnifiedConfig(llm=llm, heads=DepthHeadConfig(num_layers=1, width=16, num_heads=2, mlp_width=32))
    model = UnifiedModel(unified_config, VisualSpec.of(tokenizer), len(vocabulary), tokenizer.codebooks()).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # sharp enough that different questions have different answers
            parameter.add_(0.2 * torch.randn_like(parameter))
    return Unified(model, vocabulary, tokenizer)


@pytest.fixture
def make_engine(unified) -> Iterator[Callable[..., Engine]]:
    engines: list[Engine] = []

    def make(**limits) -> Engine:
        engines.append(Engine(unified, Limits(**limits)))
        return engines[-1]

    yield make
    for engine in engines:
        engine.batcher.close()


class Live(NamedTuple):
    url: str
    engine: Engine


@pytest.fixture
def make_live(make_engine) -> Iterator[Callable[..., Live]]:
    """A real server on a free port of this machine."""
    running: list[tuple[uvicorn.Server, Thread]] = []

    def make(**limits) -> Live:
        metrics, listening, engine = Metrics(), listen("127.0.0.1", 0), make_engine(**limits)
        engine.on_batch = metrics.observe_batch
        server = uvicorn.Server(uvicorn.Config(Api(engine, metrics).app(), log_level="warning"))
        thread = Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        running.append((server, thread))
        return Live(f"http://127.0.0.1:{listening.getsockname()[1]}", engine)

    yield make
    for server, thread in running:
        server.should_exit = True
        thread.join(10)
