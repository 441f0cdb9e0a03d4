"""A small vocabulary and small code stores, shared by the tests of data/."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from data.codes import CodeStore, CodeWriter
from data.vocabulary import Vocabulary

datasets.disable_progress_bars()

TEXTS = [
    "Draw: a red apple, 3d style",
    "waving hand, medium skin tone, flat style",
    "Describe the picture.",
    "user system",
]


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return Vocabulary.train(TEXTS * 3, 320)


def _metadata(i: int) -> dict[str, Any]:
    return {"number": i, "group": "first" if i == 0 else "rest", "tags": ["odd"] * (i % 2)}


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., CodeStore]:
    """make_store(name, num_samples): keys name-0…, two captions each, random codes of 6 positions × 3 depths."""

    def make(name: str = "codes", num_samples: int = 4, captions: list[str] | None = None, **provenance) -> CodeStore:
        facts = {"tokenizer_id": "tok", "transform": "none", "num_patches": 6, "grid": [2, 3], "depth": 3}
        facts |= {"codebook_size": 8, "source": "noise", **provenance}
        rng = np.random.default_rng(len(name))
        with CodeWriter(tmp_path / name, facts) as writer:
            for i in range(num_samples):
                pixel, semantic = rng.integers(8, size=(2, facts["num_patches"], facts["depth"]))
                words = ["red", "apple", "hand"] * (1 + i % 3)
                texts = captions if captions is not None else [" ".join(words), f"{' '.join(words)} {i}"]
                writer.add(f"{name}-{i}", pixel, semantic, texts, _metadata(i))
        return CodeStore.open(tmp_path / name)

    return make
