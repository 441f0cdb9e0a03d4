"""The formula against torch's own counter, which sees every product that is really computed."""

from dataclasses import replace

import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from data.batch import Batch
from data.loader import Loader
from data.vocabulary import Vocabulary
from mllm.loss import loss
from mllm.model import UnifiedModel
from tests.train.tiny_mllm import make_world, tiny_config
from train.build_mllm import begin, training_texts
from train.distributed import World
from train.engine_config import EngineConfig
from train.flops import Work, model_flops
from train.parameters import PartsOptimizerConfig, group_parameters


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[UnifiedModel, Batch]:
    folder = tmp_path_factory.mktemp("flops")
    make_world(folder)
    config = tiny_config(folder)
    vocabulary = Vocabulary.train(training_texts(config.data.sources), 400)
    llm = replace(config.model.llm, attn_implementation="eager")
    model = begin(replace(config.model, llm=llm), str(config.tokenizer), vocabulary, 0, EngineConfig(), World()).model
    return model, next(iter(Loader(config.data, vocabulary))).micro_batches[0]


@pytest.mark.parametrize("trainable", [["llm", "projector", "heads"], ["projector", "heads"], ["heads"]])
def test_the_formula_counts_what_is_computed(trainable, tiny):
    model, batch = tiny
    group_parameters(model, trainable, PartsOptimizerConfig())
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss(model(batch), model.config.loss_weights, batch.num_targets).backward()
    model.zero_grad()
    num_rows, length = batch.input_ids.shape
    # The plain kernels compute all pairs of a row, and all of the depths: those of the future are masked afterwards.
    work = replace(Work.of(batch), pairs=num_rows * length**2)
    depth, width = model.visual.depth, model.pixel_head.config.width
    future = 3 * 4 * width * (depth**2 - depth * (depth + 1) / 2) * 2 * work.visual_targets
    assert counter.get_total_flops() == pytest.approx(model_flops(model, work) + future, rel=0.01)


def test_pairs_are_of_the_same_document(tiny):
    _, batch = tiny
    starts = [int((row == 0).sum()) for row in batch.position_ids]
    assert max(starts) > 1  # several documents, the padding among them
    pairs = 0
    for row in batch.position_ids.tolist():
        for place, position in enumerate(row):
            pairs += len(range(place - position, place + 1))
    assert Work.of(batch).pairs == pairs
