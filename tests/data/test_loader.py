import json
from collections import Counter
from contextlib import closing
from dataclasses import fields, replace
from itertools import islice
from threading import Event

import pytest
import torch

from data.batch import Batch
from data.codes import CodeStore
from data.loader import DataConfig, Loader
from data.sources import SourceConfig
from data.stream import RowStream
from data.validation import validation_batches

TENSORS = [field.name for field in fields(Batch) if field.name != "keys"]


@pytest.fixture
def config(make_store, tmp_path) -> DataConfig:
    """10 captions, 7 drawings and 5 conversations of 20–40 positions."""
    captions, drawings = make_store("captions", 10), make_store("drawings", 7)
    records = [
        {
            "id": f"talk-{i}",
            "image": f"drawings-{i}",
            "conversations": [{"from": "human", "value": "<image>\nhand?"}, {"from": "gpt", "value": "red" * i + "!"}],
        }
        for i in range(5)
    ]
    (tmp_path / "talks.json").write_text(json.dumps(records))
    sources = [
        SourceConfig("caption", str(captions.path), weight=0.3),
        SourceConfig("draw", str(drawings.path), weight=0.5, caption_dropout=0.2),
        SourceConfig("conversation", str(drawings.path), str(tmp_path / "talks.json"), weight=0.2),
    ]
    return DataConfig(sources, context_length=128, rows_per_batch=2, pack_window=6, seed=3)


def assert_same(ours: list[Batch], theirs: list[Batch]) -> None:
    assert [batch.keys for batch in ours] == [batch.keys for batch in theirs]
    for one, two in zip(ours, theirs, strict=True):
        for name in TENSORS:
            assert torch.equal(getattr(one, name), getattr(two, name)), name


def steps(loader: Loader, num_steps: int) -> list[list[Batch]]:
    return [step.micro_batches for step in islice(loader, num_steps)]


def test_rows_shorter_than_an_image_are_refused(config, vocabulary, tmp_path):
    (tmp_path / "t.txt").write_text("red apple\n")
    text = SourceConfig("text", path=str(tmp_path / "t.txt"))  # fits, and would hide that no image ever does
    with pytest.raises(ValueError, match=r"context_length=7 is shorter than an image, which takes 6 positions"):
        Loader(replace(config, sources=[*config.sources, text], context_length=7), vocabulary)
    assert next(iter(Loader(replace(config, sources=[text], context_length=7), vocabulary)))
    Loader(replace(config, context_length=8), vocabulary)


def test_resuming_is_exact_at_every_step(config, vocabulary):
    loader = Loader(config, vocabulary, "tok", accumulation=2)
    states, whole = [json.dumps(loader.state_dict())], []
    for step in islice(loader, 8):
        states.append(json.dumps(loader.state_dict()))
        whole.append(step.micro_batches)
    for done, state in enumerate(states):
        resumed = Loader(config, vocabulary, "tok", accumulation=2)
        resumed.load_state_dict(json.loads(state))
        for ours, theirs in zip(steps(resumed, 8 - done), whole[done:], strict=True):
            assert_same(ours, theirs)
        assert json.dumps(resumed.state_dict()) == states[-1]
    assert max(map(len, states)) < 500


def test_iterating_again_continues(config, vocabulary):
    whole, parts = Loader(config, vocabulary), Loader(config, vocabulary)
    for ours, theirs in zip(steps(parts, 2) + steps(parts, 1), steps(whole, 3), strict=True):
        assert_same(ours, theirs)


@pytest.mark.parametrize(
    ("world_size", "accumulation", "rows"), [(2, 2, 2), (1, 4, 2), (4, 1, 2), (2, 1, 4), (1, 1, 8)]
)
def test_the_global_batch_does_not_depend_on_how_it_is_split(config, vocabulary, world_size, accumulation, rows):
    reference = [step for step in islice(Loader(replace(config, rows_per_batch=8), vocabulary), 3)]
    split = replace(config, rows_per_batch=rows)
    ranks = [Loader(split, vocabulary, "tok", rank, world_size, accumulation) for rank in range(world_size)]
    for whole, *parts in zip(reference, *(islice(loader, 3) for loader in ranks), strict=True):
        micro_batches = [part.micro_batches[a] for a in range(accumulation) for part in parts]
        assert all(len(batch.input_ids) == rows for batch in micro_batches)
        joined = {name: torch.cat([getattr(batch, name) for batch in micro_batches]) for name in TENSORS}
        keys = [key for batch in micro_batches for key in batch.keys]
        assert_same([Batch(**joined, keys=keys)], whole.micro_batches)
        assert {part.num_targets for part in parts} == {whole.micro_batches[0].num_targets}
        assert {part.num_documents for part in parts} == {len(keys)}
    assert len({json.dumps(loader.state_dict()) for loader in ranks}) == 1


def test_resuming_on_another_number_of_ranks(config, vocabulary):
    one = Loader(replace(config, rows_per_batch=4), vocabulary)
    next(iter(one))
    expected = [batch.keys for batch in steps(one, 1)[0]]
    one = Loader(replace(config, rows_per_batch=4), vocabulary)
    next(iter(one))
    keys = []
    for rank in range(2):
        loader = Loader(config, vocabulary, rank=rank, world_size=2)
        loader.load_state_dict(one.state_dict())
        keys += steps(loader, 1)[0][0].keys
    assert [keys] == expected


def test_every_document_of_an_epoch_is_seen_once(config, vocabulary):
    """Documents may wait in the window across the end of an epoch, so whole epochs are read off the whole stream."""
    only = replace(config, sources=[replace(config.sources[0], weight=1.0)], pack_window=1)
    keys = [key for batches in steps(Loader(only, vocabulary), 40) for batch in batches for key in batch.keys]
    for start in range(0, len(keys) - 9, 10):
        assert sorted(keys[start : start + 10]) == sorted(f"captions-{i}" for i in range(10))
    mixed = [key for batches in steps(Loader(config, vocabulary), 40) for batch in batches for key in batch.keys]
    talks = Counter(key for key in mixed if key.startswith("talk"))
    assert len(talks) == 5 and max(talks.values()) - min(talks.values()) <= 2


def test_another_epoch_has_another_choice_of_captions(vocabulary, make_store):
    store = make_store(num_samples=7, captions=["red", "hand"])
    only = DataConfig([SourceConfig("draw", str(store.path), caption_dropout=0.3)], 36, 2, pack_window=1)
    texts: dict[str, set[str]] = {}
    for (batch,) in steps(Loader(only, vocabulary), 70):
        for key, row in zip(batch.keys, batch.input_ids, strict=True):  # a document a row
            texts.setdefault(key, set()).add(vocabulary.decode(row.tolist()))
    assert len(texts) == 7 and {len(variants) for variants in texts.values()} == {3}  # two phrasings, and none


def test_the_share_of_a_source_is_that_of_the_documents_in_rows(config, vocabulary, tmp_path):
    (tmp_path / "t.txt").write_text("red apple\n" + "a hand " * 99)  # the second one is longer than a row
    sources = [SourceConfig("text", path=str(tmp_path / "t.txt")), config.sources[0]]
    loader = Loader(replace(config, sources=[replace(source, weight=1.0) for source in sources]), vocabulary)
    keys = [key for step in steps(loader, 10) for batch in step for key in batch.keys]
    assert loader.metrics()["share.0.text"] == sum("t.txt" in key for key in keys) / len(keys) < 0.4


def test_metrics(config, vocabulary):
    loader = Loader(config, vocabulary)
    assert loader.metrics()["fill"] == 0
    batches = [batch for step in steps(loader, 25) for batch in step]
    metrics = loader.metrics()
    assert metrics["share.1.draw"] == pytest.approx(0.5, abs=0.01)
    assert metrics["share.2.conversation"] == pytest.approx(0.2, abs=0.01)
    assert metrics["epoch.1.draw"] * 7 == pytest.approx(metrics["epoch.0.caption"] * 10 * 5 / 3, abs=2)
    padding = torch.cat([batch.input_ids for batch in batches]) == vocabulary.endoftext
    assert metrics["fill"] == pytest.approx(1 - padding.float().mean().item(), abs=1e-6) and metrics["fill"] > 0.8
    assert metrics["num_bad"] == metrics["num_overlong"] == 0


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_validation_sees_everything_once_with_equal_numbers_of_batches(config, vocabulary, world_size):
    caption, draw, talk = config.sources
    config = replace(config, sources=[caption, replace(draw, caption_dropout=0.9), talk])
    ranks = [list(validation_batches(config, vocabulary, "tok", rank, world_size)) for rank in range(world_size)]
    assert len({len(batches) for batches in ranks}) == 1
    batches = [batch for rank in ranks for batch in rank]
    assert all(batch.input_ids.shape == (2, 128) for batch in batches)
    expected = (
        {f"captions-{i}" for i in range(10)} | {f"drawings-{i}" for i in range(7)} | {f"talk-{i}" for i in range(5)}
    )
    assert Counter(key for batch in batches for key in batch.keys) == Counter(expected)
    # Canonical captions, none dropped.
    texts = "".join(vocabulary.decode(row.tolist()) for batch in batches for row in batch.input_ids)
    assert texts.count("Draw: red apple hand") == 7 and not any(str(digit) in texts for digit in range(3, 10))


def test_validation_of_a_few_documents_spreads_over_the_sources(config, vocabulary):
    keys = [key for batch in validation_batches(config, vocabulary, num_documents=5) for key in batch.keys]
    assert {f"captions-{i}" for i in (0, 2, 4, 6, 8)} | {f"drawings-{i}" for i in (0, 1, 2, 4, 5)} < set(keys)
    assert len(keys) == 15
    only = replace(config, sources=config.sources[:1])
    (first, last) = (list(validation_batches(only, vocabulary, None, r, 2, num_documents=1)) for r in range(2))
    assert first[0].keys == ["captions-0"] and last[0].keys == [] and last[0].num_targets == 0


def test_user_errors(config, vocabulary, make_store):
    loader = Loader(config, vocabulary)
    with pytest.raises(ValueError, match=r"sources of \[10, 7, 5\] documents and seed 3.*have \[10, 7\] and 3"):
        Loader(replace(config, sources=config.sources[:2]), vocabulary).load_state_dict(loader.state_dict())
    with pytest.raises(ValueError, match="come from tokenizer tok, not from other"):
        Loader(config, vocabulary, "other")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        validation_batches(replace(config, sources=[SourceConfig("caption", "nowhere")]), vocabulary)
    with pytest.raises(ValueError, match="raise context_length"):
        next(iter(Loader(replace(config, context_length=12), vocabulary)))
    for name, facts in {"wide": (8, [2, 4], 3), "deep": (6, [2, 3], 4), "turned": (6, [3, 2], 3)}.items():
        store = make_store(name, **dict(zip(("num_patches", "grid", "depth"), facts, strict=True)))
        shown = f"2×3 positions × 3 of 'conversation' and {facts[1][0]}×{facts[1][1]} positions × {facts[2]} of 'draw'"
        with pytest.raises(ValueError, match=f"differ in the grid or the depth of their codes: {shown}"):
            Loader(replace(config, sources=[*config.sources, SourceConfig("draw", str(store.path))]), vocabulary)
    for wrong in ({"sources": []}, {"context_length": 0}, {"seed": -1}):
        with pytest.raises(ValueError, match="data"):
            replace(config, **wrong)


def test_codes_of_another_shape_than_their_store_says_are_named(config, vocabulary):
    file = CodeStore.open(config.sources[1].codes).path / "provenance.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"num_patches": 5, "grid": [1, 5]}))
    only = replace(config, sources=config.sources[1:2])
    with pytest.raises(ValueError, match=r"codes of 'drawings-.' in .*have shape .* is \(5, 3\): tokenize them again"):
        steps(Loader(only, vocabulary), 2)


def test_opening_reads_no_sample_and_steps_are_made_ahead(config, vocabulary, monkeypatch):
    only = replace(config, sources=config.sources[:2], prefetch=3)
    with monkeypatch.context() as patch:
        for name in ("key", "captions", "metadata", "codes"):
            patch.setattr(CodeStore, name, lambda *_: pytest.fail("a sample was read"))
        loader = Loader(only, vocabulary)
    drawn, ahead, draw = [], Event(), RowStream.__next__

    def counted(rows):
        drawn.append(draw(rows))
        if len(drawn) == 2 * (1 + 3):
            ahead.set()
        return drawn[-1]

    monkeypatch.setattr(RowStream, "__next__", counted)
    with closing(iter(loader)) as made:
        next(made)
        assert ahead.wait(60)  # nobody asks for these rows yet


def test_codes_that_went_bad_name_the_store_and_the_sample(config, vocabulary):
    file = CodeStore.open(config.sources[1].codes).path / "provenance.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"codebook_size": 2}))
    with pytest.raises(ValueError, match=r"codes of 'drawings-.' in .*outside the codebook of 2"):
        steps(Loader(config, vocabulary), 2)


def test_bad_samples_are_skipped_on_every_rank_alike(config, vocabulary, tmp_path):
    records = json.loads((tmp_path / "talks.json").read_text())
    records[2]["image"] = "unknown"
    (tmp_path / "talks.json").write_text(json.dumps(records))
    tolerant = replace(config, max_bad_share=0.5)
    loader = Loader(tolerant, vocabulary)
    keys = {key for step in steps(loader, 20) for batch in step for key in batch.keys}
    assert {f"talk-{i}" for i in (0, 1, 3, 4)} < keys and "talk-2" not in keys
    assert loader.metrics()["num_bad"] > 0
    with pytest.raises(ValueError, match="samples are unusable, the last one: conversation 'talk-2'"):
        steps(Loader(replace(config, max_bad_share=0.0), vocabulary), 20)


def test_text_alone(vocabulary, tmp_path):
    (tmp_path / "t.txt").write_text("red apple\nwaving hand\n")
    config = DataConfig([SourceConfig("text", path=str(tmp_path / "t.txt"))], context_length=16, rows_per_batch=1)
    (batch,) = next(iter(Loader(config, vocabulary))).micro_batches
    assert batch.pixel.shape == (0, 0, 0) and not batch.image_mask.any() and batch.num_targets > 0
