import json

import datasets
import numpy as np
import pytest

from data.codes import CodeStore, CodeWriter

FACTS = {"tokenizer_id": "tok", "transform": "none", "num_patches": 4, "grid": [2, 2], "depth": 2, "codebook_size": 9}
FACTS |= {"source": "noise"}


def write(path, num_samples, facts=FACTS):
    codes = np.random.default_rng(0).integers(9, size=(num_samples, 2, 4, 2))
    with CodeWriter(path, facts) as writer:
        for i, (pixel, semantic) in enumerate(codes):
            writer.add(f"k{i}", pixel, semantic, ["a cat", "ein Kätzchen 😀"][: i % 3], {"n": i, "tags": ["x"]})
    return codes


def test_round_trip_over_several_record_batches(tmp_path):
    codes = write(tmp_path / "codes", 2500)
    store = CodeStore.open(tmp_path / "codes", "tok")
    assert len(store) == 2500 and store.provenance == FACTS
    for i in (0, 999, 1000, 1001, 2499):
        pixel, semantic = store.codes(i)
        assert store.key(i) == f"k{i}" and store.metadata(i) == {"n": i, "tags": ["x"]}
        assert store.captions(i) == ["a cat", "ein Kätzchen 😀"][: i % 3]
        assert pixel.dtype == semantic.dtype == np.uint16
        np.testing.assert_array_equal([pixel, semantic], codes[i])
        assert store.index_of(f"k{i}") == i
    assert "k2500" not in store
    with pytest.raises(IndexError, match="row 2500 of the 2500"):
        store.codes(2500)


def test_the_format_is_that_of_datasets(tmp_path):
    codes = write(tmp_path / "codes", 3)
    rows = datasets.load_from_disk(str(tmp_path / "codes"))
    np.testing.assert_array_equal(np.array(rows["semantic"]).reshape(3, 4, 2), codes[:, 1])
    assert rows.features["pixel"].feature.dtype == "uint16"


def test_torch_codes_are_accepted(tmp_path):
    import torch

    codes = torch.arange(8).view(4, 2)
    with CodeWriter(tmp_path / "codes", FACTS) as writer:
        writer.add("k", codes, codes, [])
    np.testing.assert_array_equal(CodeStore.open(tmp_path / "codes").codes(0)[1], codes)


def test_another_tokenizer_is_refused(tmp_path):
    write(tmp_path / "codes", 1)
    with pytest.raises(ValueError, match="come from tokenizer tok, not from other"):
        CodeStore.open(tmp_path / "codes", "other")


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.full((4, 2), 9), "from 9 to 9, outside the codebook of 9"),
        (np.full((4, 2), -1), "from -1 to -1"),
        (np.zeros((4, 3), int), r"shape \(4, 3\)"),
        (np.zeros((4, 2)), "float64"),
    ],
)
def test_bad_codes_are_not_written(tmp_path, codes, message):
    good = np.zeros((4, 2), int)
    with pytest.raises(ValueError, match=f"codes of 'k'.*{message}"), CodeWriter(tmp_path / "codes", FACTS) as writer:
        writer.add("good", good, good, [])
        writer.add("k", good, codes, [])
    assert list(tmp_path.iterdir()) == []


def test_codes_out_of_range_are_not_read(tmp_path):
    write(tmp_path / "codes", 20)
    (tmp_path / "codes" / "provenance.json").write_text(json.dumps(FACTS | {"codebook_size": 2}))
    with pytest.raises(ValueError, match=r"'k3' in .*codes.* outside the codebook of 2"):
        CodeStore.open(tmp_path / "codes").codes(3)


def test_a_store_is_whole_or_absent(tmp_path):
    write(tmp_path / "codes", 2)
    with pytest.raises(RuntimeError), CodeWriter(tmp_path / "codes", FACTS) as writer:
        writer.add("k", np.zeros((4, 2), int), np.zeros((4, 2), int), [])
        raise RuntimeError("killed")
    assert len(CodeStore.open(tmp_path / "codes")) == 2
    write(tmp_path / "codes", 5)
    assert len(CodeStore.open(tmp_path / "codes")) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["codes"]


def test_what_is_left_of_a_killed_writer_does_not_matter(tmp_path):
    (tmp_path / ".codes.partial").mkdir()
    (tmp_path / ".codes.partial" / "rows.arrow").write_bytes(b"half")
    write(tmp_path / "codes", 2)
    assert len(CodeStore.open(tmp_path / "codes")) == 2


def test_user_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="dualtoken pretokenize"):
        CodeStore.open(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no sample was written"), CodeWriter(tmp_path / "codes", FACTS):
        pass
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").touch()
    with pytest.raises(ValueError, match="exists and is no code store"):
        CodeWriter(tmp_path / "photos", FACTS)
    with pytest.raises(ValueError, match="lacks depth"):
        CodeWriter(tmp_path / "codes", {k: v for k, v in FACTS.items() if k != "depth"})
    write(tmp_path / "codes", 2)
    for file, content in (("state.json", "{"), ("provenance.json", '{"depth": 2}'), ("provenance.json", "3")):
        (tmp_path / "codes" / file).write_text(content)
        with pytest.raises(ValueError, match="is damaged"):
            CodeStore.open(tmp_path / "codes")


def test_a_key_must_be_unique_to_be_looked_up(tmp_path):
    zeros = np.zeros((4, 2), int)
    with CodeWriter(tmp_path / "codes", FACTS) as writer:
        for key in ("a", "b", "a"):
            writer.add(key, zeros, zeros, [])
    with pytest.raises(ValueError, match="'a' occurs more than once"):
        CodeStore.open(tmp_path / "codes").index_of("b")
