"""A store in parts: the same rows as one writer makes, and nothing of an earlier run but what is still right."""

import os

import datasets
import numpy as np
import pytest

from data.code_parts import CodeParts
from data.codes import CodeStore, CodeWriter

FACTS = {"tokenizer_id": "tok", "transform": "none", "num_patches": 4, "grid": [2, 2], "depth": 2, "codebook_size": 9}
FACTS |= {"source": "shards"}
NUM_ROWS = 5  # of each shard


@pytest.fixture
def shards(tmp_path):
    files = [tmp_path / f"{name}.tar" for name in "abc"]
    for file in files:
        file.touch()
    return files


def fill(writer, shard):
    """Rows that the name of the shard decides."""
    rng = np.random.default_rng(ord(shard.stem))
    for i, (pixel, semantic) in enumerate(rng.integers(9, size=(NUM_ROWS, 2, 4, 2))):
        writer.add(f"{shard.stem}{i}", pixel, semantic, [f"caption {i}"], {"n": i})


def write(path, shards, facts=FACTS):
    """Fills what is missing and publishes; the shards that were missing."""
    parts = CodeParts(path, facts, shards)
    parts.discard_outdated()
    missing = parts.missing()
    for shard in shards:
        if str(shard) in missing:
            with parts.writer(str(shard)) as writer:
                fill(writer, shard)
    parts.publish()
    return missing


def test_parts_make_the_store_of_one_writer(tmp_path, shards):
    with CodeWriter(tmp_path / "whole", FACTS) as writer:
        for shard in shards:
            fill(writer, shard)
    write(tmp_path / "parts", shards)
    whole, parts = CodeStore.open(tmp_path / "whole"), CodeStore.open(tmp_path / "parts", "tok")
    assert len(parts) == len(whole) == 3 * NUM_ROWS and parts.provenance == FACTS
    for i in range(len(whole)):
        assert (parts.key(i), parts.captions(i), parts.metadata(i)) == (
            whole.key(i),
            whole.captions(i),
            whole.metadata(i),
        )
        np.testing.assert_array_equal(parts.codes(i), whole.codes(i))
        assert parts.index_of(whole.key(i)) == i
    assert datasets.load_from_disk(str(tmp_path / "parts"))["key"][-1] == "c4"
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["parts", "whole"]


def test_parts_that_are_there_are_not_written_again(tmp_path, shards):
    parts = CodeParts(tmp_path / "codes", FACTS, shards)
    with parts.writer(str(shards[1])) as writer:
        fill(writer, shards[1])
    (parts.folder / ".00002.partial").mkdir()  # as a kill leaves it
    assert write(tmp_path / "codes", shards) == [str(shards[0]), str(shards[2])]
    assert [CodeStore.open(tmp_path / "codes").key(i)[0] for i in range(0, 15, NUM_ROWS)] == ["a", "b", "c"]


@pytest.mark.parametrize("change", ["tokenizer", "shard", "order", "torn"])
def test_parts_of_something_else_are_written_again(tmp_path, shards, change):
    earlier = CodeParts(tmp_path / "codes", FACTS, shards)
    for shard in shards:
        with earlier.writer(str(shard)) as writer:
            fill(writer, shard)
    facts, again = FACTS, shards
    if change == "tokenizer":
        facts = FACTS | {"tokenizer_id": "other"}
    elif change == "shard":
        later = earlier.parts[str(shards[1])].stat().st_mtime + 10
        os.utime(shards[1], (later, later))
    elif change == "torn":
        (earlier.parts[str(shards[1])] / "provenance.json").write_text("{")
    else:
        again = [shards[1], shards[0]]
    expected = {"tokenizer": shards, "shard": [shards[1]], "torn": [shards[1]], "order": again}[change]
    assert write(tmp_path / "codes", again, facts) == [str(shard) for shard in expected]
    store = CodeStore.open(tmp_path / "codes", facts["tokenizer_id"])
    assert [store.key(i)[0] for i in range(0, len(store), NUM_ROWS)] == [shard.stem for shard in again]


def test_a_store_is_replaced_when_the_new_one_is_whole(tmp_path, shards):
    write(tmp_path / "codes", shards)
    unfinished = CodeParts(tmp_path / "codes", FACTS, shards[:1])
    unfinished.discard_outdated()
    assert len(CodeStore.open(tmp_path / "codes")) == 3 * NUM_ROWS
    with pytest.raises(ValueError, match="no usable image"):
        unfinished.publish()
    assert write(tmp_path / "codes", shards[:1]) == [str(shards[0])]
    assert len(CodeStore.open(tmp_path / "codes")) == NUM_ROWS


def test_bad_samples_of_every_shard_count_whoever_read_them_and_one_named_twice_is_read_once(tmp_path, shards):
    """A shard without a usable sample is a part without rows, which is not read again."""

    def parts():
        return CodeParts(tmp_path / "codes", FACTS, [shards[0], shards[1], shards[0]])

    parts().discard_outdated()
    assert parts().missing() == [str(shards[0]), str(shards[1])]
    with parts().writer(str(shards[0])) as writer:
        writer.num_bad = 3
    with parts().writer(str(shards[1])) as writer:
        fill(writer, shards[1])
    with pytest.raises(ValueError, match=r"3 of 8 samples .*a\.tar with 3"):
        parts().publish(0.3)
    parts().discard_outdated()
    assert parts().missing() == []
    parts().publish(0.4)
    store = CodeStore.open(tmp_path / "codes")
    assert parts().is_published() and len(store) == NUM_ROWS and [store.key(0), store.index_of("b4")] == ["b0", 4]


def test_a_folder_that_is_no_store_is_left_alone(tmp_path, shards):
    with pytest.raises(ValueError, match="exists and is no code store"):
        CodeParts(tmp_path, FACTS, shards)
