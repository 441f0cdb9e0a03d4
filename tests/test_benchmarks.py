"""The benchmarks that are prepared for a GPU run to their end, and count what they divide by as torch counts it."""

import json

import pytest
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import gpu, sampling
from benchmarks import quantizer as quantizer_benchmark
from benchmarks import tokenizer as tokenizer_benchmark
from benchmarks.unified_sizes import Sizes, build, drawings, flops
from mllm.loss import loss
from tests.train.tiny_tokenizer import make_world, tiny_document


def test_the_gpu_benchmark_leaves_its_figures(tmp_path):
    figures = gpu.main(["--tiny", "--json", str(tmp_path / "gpu.json")])
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert written == {"machine": written["machine"], **json.loads(json.dumps(figures))}
    assert not [name for name, value in figures.items() if str(value).startswith(("failed", "left out"))]
    losses = figures["visual loss"]["losses"]
    assert losses["ours"] == pytest.approx(losses["plain"], rel=1e-5)
    assert figures["training, 8 row(s)"]["tokens per second"] > 0 and figures["training, 1 row(s)"]["mfu"] > 0
    assert (
        0 < figures["training, 1 row(s)"]["estimated gigabytes"] < figures["training, 8 row(s)"]["estimated gigabytes"]
    )
    shares = figures["step / bare LLM, 1 row"]["share of ours"]
    assert set(shares) == {"LLM without logits", "embedding", "heads", "visual loss", "text loss"}


def test_the_tokenizer_is_timed_in_the_step_of_its_own_stage(tmp_path, capsys):
    make_world(tmp_path)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_document(tmp_path)))
    tokenizer_benchmark.main([str(tmp_path / "tiny.yaml"), "--images", "3"])
    printed = capsys.readouterr().out
    assert {"encode", "decode", "training step"} <= {line.split("  ")[0] for line in printed.splitlines()}
    assert "a training step\n" in printed


def test_the_quantizer_finds_the_codes_of_its_peer(monkeypatch, capsys):
    monkeypatch.setattr(quantizer_benchmark, "POSITIONS", 9)
    monkeypatch.setattr(quantizer_benchmark, "CODEBOOK_SIZE", 32)
    quantizer_benchmark.main(["--images", "2", "--many", "3", "--repeats", "1"])
    assert "same codes: 100.0000%" in capsys.readouterr().out


def test_no_part_begins_late(tmp_path):
    figures = gpu.main(["--tiny", "--minutes", "0", "--json", str(tmp_path / "gpu.json")])
    assert figures["visual loss"] == figures["training, 1 row(s)"] == "left out: no time"


def test_drawing_is_measured_contender_by_contender(tmp_path, monkeypatch):
    original = sampling.draw

    def draw(model, vocabulary, cfg, runtime, batch):
        if batch == 2:
            raise RuntimeError("out of memory")
        return original(model, vocabulary, cfg, runtime, batch)

    monkeypatch.setattr(sampling, "draw", draw)
    monkeypatch.setattr(sampling, "copy_bandwidth", lambda *_: 1e10)
    words = ["--size", "tiny", "--side", "2", "--batches", "1", "2", "--repeats", "1"]
    sampling.main([*words, "--json", str(tmp_path / "sampling.json")])
    written = json.loads((tmp_path / "sampling.json").read_text())
    assert set(written["seconds"]) == {"ours, eager, batch 1", "usual loop, one image"}
    assert written["failed"] == {"ours, eager, batch 2": "out of memory"} and written["floor_seconds"] > 0


def test_flops_are_those_that_torch_counts():
    """But for attention over all pairs, of which a causal model needs half, and projections into the heads."""
    sizes = Sizes(scale=16, num_layers=2, context_length=152, grid=(4, 11))
    model, batch = build(sizes, "cpu", torch.float32), drawings(sizes, 1, "cpu")
    with FlopCounterMode(display=False) as counter:
        loss(model(batch), model.config.loss_weights, 1).backward()
    assert sum(flops(model, batch).values()) == pytest.approx(counter.get_total_flops(), rel=0.1)
