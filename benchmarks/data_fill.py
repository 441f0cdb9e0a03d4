"""How full the rows of the shipped configs are, packed as they say, and at other lengths.

    python -m benchmarks.data_fill --run runs/demo --datasets datasets --lengths 1088 1152 1216

reads the codes, questions and vocabulary of a finished `make demo`. configs/small is measured if its pictures are in
`--datasets` (configs/small/chain.yaml says how they are made): with their captions, codes of 256 positions that are all
zero, a vocabulary trained on them, and the questions of the demo, whose emoji are the same.
"""

import argparse
import json
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from omegaconf import OmegaConf

from data.codes import CodeWriter
from data.loader import DataConfig, Loader
from data.mixture import Mixture
from data.sources import SourceConfig
from data.stream import RowStream
from data.vocabulary import Vocabulary
from train.build_mllm import training_texts

CONFIGS = Path(__file__).parents[1] / "configs"
NUM_ROWS = 1000
SMALL = {"num_patches": 256, "grid": [16, 16], "depth": 1, "codebook_size": 8}


def data_of(file: str, run: Path) -> DataConfig:
    """The data of a shipped config, with the folder of a run in the place of its own."""
    config: Any = OmegaConf.load(CONFIGS / file)
    config.out = str(run / "stage")
    data = OmegaConf.to_container(config.data, resolve=True)
    return DataConfig(**data | {"sources": [SourceConfig(**source) for source in data["sources"]]})


def fill(config: DataConfig, vocabulary: Vocabulary) -> str:
    sources = Loader(config, vocabulary).sources
    draws = Mixture([len(s) for s in sources], [s.weight for s in config.sources], config.seed)
    rows = RowStream(sources, draws, config.context_length, config.pack_window, config.seed, config.max_bad_share)
    lengths = [[len(document) for document in row] for row in islice(rows, NUM_ROWS)]
    mean = np.mean([length for row in lengths for length in row])
    share = sum(map(sum, lengths)) / (NUM_ROWS * config.context_length)
    return f"{share:.2%}, {np.mean(list(map(len, lengths))):.2f} documents a row of {mean:.1f} positions on average"


def samples(shards: list[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    for shard in shards:
        with tarfile.open(shard) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    yield member.name.removesuffix(".json"), json.load(tar.extractfile(member))


def small_run(folder: Path, pictures: Path, run: Path) -> None:
    """What the stages before configs/small/pretrain.yaml leave, with codes that are all zero."""
    codes = np.zeros((SMALL["num_patches"], SMALL["depth"]), np.uint16)
    for name, pattern in (("emoji", "emoji-128/train-*.tar.gz"), ("openclipart", "openclipart/train-*.tar")):
        facts = {"tokenizer_id": "synthetic", "transform": "", "source": pattern, **SMALL}
        with CodeWriter(folder / "codes" / name, facts) as writer:
            for key, metadata in samples(sorted(pictures.glob(pattern))):
                writer.add(key, codes, codes, metadata["captions"], metadata)
    (folder / "benchmarks").symlink_to((run / "benchmarks").resolve())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/demo"))
    parser.add_argument("--datasets", type=Path, default=Path("datasets"))
    parser.add_argument("--lengths", type=int, nargs="*", default=[], help="of configs/small, besides its own")
    args = parser.parse_args()
    datasets.disable_progress_bars()
    vocabulary = Vocabulary.from_pretrained(args.run / "pretrain/vocabulary")
    for file in ("tiny/pretrain.yaml", "tiny/instruct.yaml"):
        config = data_of(file, args.run)
        for window in sorted({64, 256, 512, config.pack_window}):
            shown = fill(replace(config, pack_window=window), vocabulary)
            print(f"{file}: {config.context_length} positions, window {window}: {shown}", flush=True)
    if not (args.datasets / "openclipart").is_dir():
        return
    with tempfile.TemporaryDirectory() as folder:
        small_run(Path(folder), args.datasets, args.run)
        vocabulary = Vocabulary.train(training_texts(data_of("small/pretrain.yaml", Path(folder)).sources), 4096)
        for file in ("small/pretrain.yaml", "small/instruct.yaml"):
            config = data_of(file, Path(folder))
            for length in (config.context_length, *args.lengths):
                shown = fill(replace(config, context_length=length), vocabulary)
                print(f"{file}: {length} positions, window {config.pack_window}: {shown}", flush=True)


if __name__ == "__main__":
    main()
