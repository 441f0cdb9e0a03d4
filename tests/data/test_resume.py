"""What a run sees when it is killed, and when it goes on with other workers or another number of ranks."""

import json
import random
from dataclasses import replace
from itertools import chain, islice

import pytest
import torch

from data.loader import DataConfig, Loader, Step
from data.sources import SourceConfig

NUM_STEPS = 60
SEES = tuple[list[str], int]


@pytest.fixture
def config(make_store, tmp_path) -> DataConfig:
    captions, drawings = make_store("captions", 23), make_store("drawings", 17)
    (tmp_path / "t.txt").write_text("\n".join(f"red apple {i}" for i in range(9)))
    sources = [
        SourceConfig("caption", str(captions.path), weight=2.0, epochs=3),
        SourceConfig("draw", str(drawings.path), weight=3.0, caption_dropout=0.3),
        SourceConfig("text", path=str(tmp_path / "t.txt")),
    ]
    return DataConfig(sources, context_length=96, rows_per_batch=2, pack_window=7, seed=5)


def seen(step: Step) -> SEES:
    """The keys of a step in their order, and a sum that other codes or captions would change."""
    keys = [key for batch in step.micro_batches for key in batch.keys]
    return keys, sum(int((b.input_ids * torch.arange(96)).sum() + b.pixel.sum()) for b in step.micro_batches)


@pytest.mark.parametrize("seed", range(3))
def test_a_run_killed_at_20_random_moments_sees_what_a_quiet_one_sees(config, vocabulary, seed):
    """Each start has another number of workers and of steps made ahead; checkpoints are some steps apart."""
    quiet = [seen(step) for step in islice(Loader(config, vocabulary), NUM_STEPS)]
    chance = random.Random(seed)
    log: list[SEES] = []
    saved, position = None, 0  # the checkpoint: its state, and the steps it holds
    for kill in range(21):
        workers, prefetch = chance.choice([0, 1, 2, 4]), chance.choice([1, 2, 5])
        loader = Loader(replace(config, workers=workers, prefetch=prefetch), vocabulary)
        if saved is not None:
            loader.load_state_dict(json.loads(saved))
        log = log[:position]  # what came after the checkpoint is done again
        life = chance.randrange(8) if kill < 20 else NUM_STEPS
        for step in islice(loader, min(life, NUM_STEPS - position)):
            log.append(seen(step))
            if chance.random() < 0.4:
                saved, position = json.dumps(loader.state_dict()), len(log)
    assert log == quiet and len(json.dumps(loader.state_dict())) < 500


@pytest.mark.parametrize("sizes", [(1, 2, 3), (4, 1, 2), (3, 5, 1)])
def test_another_number_of_ranks_goes_on_where_the_others_stopped(config, vocabulary, sizes):
    """The rows of all ranks together, in their order, are those of one process: none is repeated, none left out."""

    def rows(step_of_ranks: tuple[Step, ...]) -> list[list[int]]:
        return [row.tolist() for step in step_of_ranks for batch in step.micro_batches for row in batch.input_ids]

    one = Loader(replace(config, rows_per_batch=1), vocabulary)
    stream = [row for step in islice(one, 200) for row in rows((step,))]
    state, found = None, []
    for world_size in sizes:
        ranks = [Loader(config, vocabulary, rank=rank, world_size=world_size) for rank in range(world_size)]
        for loader in ranks:
            if state is not None:
                loader.load_state_dict(state)
        found += list(chain.from_iterable(map(rows, islice(zip(*ranks, strict=True), 4))))
        state = ranks[-1].state_dict()
    assert found == stream[: len(found)] and len(found) == 4 * 2 * sum(sizes)


@pytest.mark.parametrize("world_size", [1, 2])
def test_the_loader_ends_with_its_sources_and_leaves_nothing_out(config, vocabulary, world_size):
    ends = replace(config, sources=[replace(source, epochs=2) for source in config.sources])
    ranks = [list(Loader(ends, vocabulary, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert len({len(steps) for steps in ranks}) == 1
    assert all(batch.input_ids.shape == (2, 96) for steps in ranks for step in steps for batch in step.micro_batches)
    keys = [key for steps in ranks for step in steps for batch in step.micro_batches for key in batch.keys]
    assert len(keys) == 2 * (23 + 17 + 9) and len(set(keys)) == 23 + 17 + 9
    last = Loader(ends, vocabulary)
    for _ in last:
        pass
    resumed = Loader(ends, vocabulary)
    resumed.load_state_dict(last.state_dict())
    assert list(resumed) == []


def test_batches_are_pinned_when_asked(config, vocabulary, monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
    (batch,) = next(iter(Loader(replace(config, workers=0), vocabulary, pin_memory=True))).micro_batches
    assert len(pinned) == 7 and batch.input_ids is pinned[2] and len(batch.keys)


def test_codes_out_of_range_cost_a_sample_and_not_the_run(config, vocabulary, tmp_path, caplog):
    """One damaged image of 17 is skipped, counted and named; on every rank alike, though one of them would read it."""
    from data.codes import CodeStore

    def damaged(self, index, codes=CodeStore.codes):
        if self.path.name == "drawings" and index == 3:
            raise ValueError(f"the pixel codes of {self.key(index)!r} in {str(self.path)!r} run from 0 to 99")
        return codes(self, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CodeStore, "codes", damaged)
        tolerant = replace(config, max_bad_share=0.2)
        ranks = [Loader(tolerant, vocabulary, rank=rank, world_size=2) for rank in range(2)]
        steps = list(islice(zip(*ranks, strict=True), 20))
        keys = {key for pair in steps for step in pair for batch in step.micro_batches for key in batch.keys}
        assert "drawings-3" not in keys and len(keys) == 23 + 16 + 9
        assert "the pixel codes of 'drawings-3' in" in caplog.text
        assert len({loader.metrics()["num_bad"] for loader in ranks}) == 1 and ranks[0].metrics()["num_bad"] > 0
        with pytest.raises(ValueError, match="samples are unusable, the last one: the pixel codes of 'drawings-3'"):
            list(islice(Loader(replace(config, max_bad_share=0.0), vocabulary), 60))
