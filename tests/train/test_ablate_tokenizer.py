"""The ablation at miniature size: every variant trained and measured, finished ones used again, others' refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.train import test_train_tower
from tests.train.tiny_tokenizer import make_world, tiny_document
from train import train_tokenizer, train_tower
from train.ablate_tokenizer import AblateTokenizerConfig, main


@pytest.fixture
def config(tmp_path) -> AblateTokenizerConfig:
    make_world(tmp_path)
    shutil.rmtree(tmp_path / "tower")  # has no half for texts
    train_tower.main(replace(test_train_tower.tiny_config(tmp_path, 1, "tower"), patch_size=4))
    pictures = str(tmp_path / "pictures.tar")
    training = tiny_document(tmp_path, adversarial={}, accumulation=1, loop={"steps": 1}, sample_every=0)
    evaluation = {"images": pictures, "classes": pictures, "label": None, "batch_size": 12}
    for name, document in (("train", training), ("evaluate", evaluation)):
        (tmp_path / f"{name}.yaml").write_text(json.dumps(document))  # JSON is YAML
    return AblateTokenizerConfig(
        out=str(tmp_path / "ablation"),
        train=str(tmp_path / "train.yaml"),
        evaluate=str(tmp_path / "evaluate.yaml"),
        tower=str(tmp_path / "tower/export"),
        variants={"dual": [], "reconstruction": ["loss.semantic=0", "loss.pooled=0"]},
        seeds=[0],
        pictures=2,
    )


def test_variants_are_trained_measured_and_used_again(config, monkeypatch):
    main(config)
    out = Path(config.out)
    figures = json.loads((out / "result.json").read_text())["figures"]
    assert len(figures["dual"]["reconstruction.psnr"]) == len(figures["reconstruction"]["reconstruction.psnr"]) == 1
    assert figures["dual"]["codebook_usage.semantic"] and "codebook_usage.semantic" not in figures["reconstruction"]
    assert (out / "table.md").read_text().splitlines()[-1].startswith("| reconstruction | ")
    assert (out / "samples/variants.png").is_file()
    monkeypatch.setattr(train_tokenizer, "main", None)  # finished stages are not run again
    main(config)
    assert json.loads((out / "result.json").read_text())["figures"] == figures
    with pytest.raises(ValueError, match=r"dual-0 was made with another config \(loop\.steps: 1 → 2\)"):
        main(replace(config, common=["loop.steps=2"]))
