"""The examples of docs/training-data.md, run as they stand."""

import re
from itertools import islice
from pathlib import Path

import datasets
import numpy as np
import pytest
import yaml
from PIL import Image

from data.codes import CodeWriter
from data.loader import DataConfig, Loader
from data.sources import SourceConfig
from data.vocabulary import Vocabulary

TEXT = (Path(__file__).parents[1] / "docs/training-data.md").read_text()
CONFIGS = re.findall(r"```yaml\n(.*?)```", TEXT, re.S)
FILES = re.findall(r"```json file=(\S+)\n(.*?)```", TEXT, re.S)
EXPECTED = [
    {"cat", "dog"},
    {"one", "many"},
    {"two", "draws"},
    {"obelics", "mmc4"},
    {"texts.jsonl:0"},
    {"obelics", "mmc4"},
]


class Encoder:
    grid, num_patches, depth = (2, 2), 4, 2

    def encode(self, pictures):
        return [(np.zeros((4, 2), np.uint16),) * 2 for _ in pictures]


@pytest.mark.parametrize(("config", "keys"), list(zip(CONFIGS, EXPECTED, strict=True)))
def test_example(config, keys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    datasets.disable_progress_bars()
    for name, content in FILES:
        Path(name).write_text(content)
    Path("pictures").mkdir()
    facts = {"tokenizer_id": "t", "transform": "", "num_patches": 4, "grid": [2, 2], "depth": 2, "codebook_size": 8}
    with CodeWriter("codes", {**facts, "source": "docs"}) as writer:
        for name in ("cat", "dog"):
            writer.add(name, np.ones((4, 2), int), np.ones((4, 2), int), [f"a {name}"])
            Image.new("RGB", (8, 8)).save(f"pictures/{name}.jpg")
    sources = [SourceConfig(**source) for source in yaml.safe_load(config)["sources"]]
    loader = Loader(DataConfig(sources, 96, 2), Vocabulary.train([], 280), encoder=Encoder())
    batches = [batch for step in islice(loader, 4) for batch in step.micro_batches]
    assert {key for batch in batches for key in batch.keys} == keys and loader.metrics()["num_bad"] == 0
    assert sum(batch.num_targets for batch in batches) > 0
