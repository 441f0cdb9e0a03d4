"""Weights on the disk: one file, shards, 8 bits; each read as it was written."""

import json

import pytest
import torch
from safetensors.torch import load_file

from mllm.weights import INDEX, SINGLE, WeightFiles, parse_size, write_weights


@pytest.fixture
def weights():
    torch.manual_seed(0)
    shapes = {"a.weight": (6, 8), "b.weight": (2, 5, 8), "b.bias": (5,), "c.weight": (3, 8)}
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def test_one_file(weights, tmp_path):
    assert write_weights(weights.items(), tmp_path, None, "5GB") == torch.float32
    files = WeightFiles(tmp_path)
    assert set(files) == set(load_file(tmp_path / SINGLE)) == set(weights) and not (tmp_path / INDEX).exists()
    assert all(torch.equal(files[name], weight) for name, weight in weights.items())
    assert files.shape("b.weight") == (2, 5, 8) and files.stored_as == "F32"


def test_shards_are_those_of_transformers(weights, tmp_path):
    """No shard exceeds the size, the names are counted, and the index says where each weight is."""
    write_weights(weights.items(), tmp_path, None, "400B")
    shards = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert shards == [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    index = json.loads((tmp_path / INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(weight.nbytes for weight in weights.values())
    for name, file in index["weight_map"].items():
        assert torch.equal(load_file(tmp_path / file)[name], weights[name])
    assert all(torch.equal(WeightFiles(tmp_path)[name], weight) for name, weight in weights.items())
    doubled = {name: 2 * weight for name, weight in WeightFiles(tmp_path).items()}
    for size, num_files in (("5GB", 1), ("400B", 4)):  # each takes the place of what was there
        write_weights(doubled.items(), tmp_path, None, size)
        assert all(torch.equal(WeightFiles(tmp_path)[name], 2 * weight) for name, weight in weights.items())
        assert len(list(tmp_path.iterdir())) == num_files


def test_one_weight_is_in_memory_at_a_time(weights, tmp_path):
    """A shard is written before the weight after it is made."""
    written = []

    def made():
        for name, weight in weights.items():
            written.append(len(list(tmp_path.iterdir())))
            yield name, weight

    write_weights(made(), tmp_path, None, "1B")
    assert written == [0, 0, 1, 2]


def test_another_precision(weights, tmp_path):
    assert write_weights(weights.items(), tmp_path, torch.bfloat16, "5GB") == torch.bfloat16
    assert all(torch.equal(WeightFiles(tmp_path)[name], weight.bfloat16()) for name, weight in weights.items())


def test_eight_bits(weights, tmp_path):
    """A row's error is at most half of its largest value / 127; vectors stay as they are."""
    weights["a.weight"][2] = 0
    assert write_weights(weights.items(), tmp_path, torch.int8, "5GB") == torch.float32
    files = WeightFiles(tmp_path)
    assert set(files) == set(weights) and len(files) == 4 and files.stored_as.startswith("I8")
    assert torch.equal(files["b.bias"], weights["b.bias"])
    for name in ("a.weight", "b.weight", "c.weight"):
        error = (files[name] - weights[name]).abs()
        assert (error <= weights[name].abs().amax(-1, keepdim=True) / 127 / 2 * 1.001).all()
    write_weights(files.items(), tmp_path, torch.int8, "5GB")
    again = WeightFiles(tmp_path)
    assert all(torch.allclose(again[name], files[name], atol=1e-6) for name in files)


def test_mistakes_are_named(weights, tmp_path):
    for size in ("5", "GB", "0GB", "-1GB", "5GiB"):
        with pytest.raises(ValueError, match="is no size"):
            parse_size(size)
    assert (parse_size("5GB"), parse_size("1.5 mb"), parse_size("200b")) == (5 * 10**9, 1_500_000, 200)
    write_weights(weights.items(), tmp_path, None, "400B")
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model-00002-of-00003.safetensors is missing"):
        dict(WeightFiles(tmp_path))
    (tmp_path / INDEX).write_text('{"weight_map": {"a.weight": "../secret.safetensors"}}')
    with pytest.raises(ValueError, match="outside its folder"):
        WeightFiles(tmp_path)
    (tmp_path / INDEX).write_text("[]")
    with pytest.raises(ValueError, match="no index of weights"):
        WeightFiles(tmp_path)
