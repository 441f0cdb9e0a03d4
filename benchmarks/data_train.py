"""What training data cost: packing, the loader, opening and resuming ten million samples, picture files.

    python benchmarks/data_train.py --run runs/demo-long

reads the codes, the conversations, the vocabulary and the tokenizer of a finished `make demo-long` (or `make demo` with
--run runs/demo), and prints the figures of docs/benchmarks.md. Nothing is asserted: times belong to a machine.
"""

import argparse
import io
import json
import resource
import sys
import tarfile
import tempfile
import time
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run from anywhere, as a file

import datasets
import numpy as np
import pyarrow as pa
from datasets.arrow_writer import ArrowWriter
from PIL import Image

from data.codes import PROVENANCE, CodeStore
from data.loader import DataConfig, Loader
from data.mixture import Mixture
from data.sources import SourceConfig, open_sources
from data.stream import RowStream
from data.vocabulary import Vocabulary

NUM_SYNTHETIC, ROWS_OF_A_BATCH = 10_000_000, 1000  # of CodeWriter


def mixture_of(run: Path) -> list[SourceConfig]:
    """That of configs/tiny/instruct.yaml."""
    codes, talks = str(run / "codes/train"), str(run / "benchmarks/train/llava.json")
    return [
        SourceConfig("conversation", codes, talks, 5.0),
        SourceConfig("draw", codes, weight=4.0, caption_dropout=0.1, balance="concept,style"),
        SourceConfig("caption", codes, weight=1.0, balance="concept,style"),
    ]


def packing(run: Path, vocabulary: Vocabulary, num_rows: int) -> None:
    print("packing: context length, window → fill; ms a row, of which best fit is the part beyond a window of 1")
    configs = mixture_of(run)
    sources = open_sources(configs, vocabulary)
    for context_length in (352, 512, 1024, 2048):
        for window in (1, 64, 256):
            draws = Mixture([len(s) for s in sources], [c.weight for c in configs], 0)
            rows = RowStream(sources, draws, context_length, window, 0, 0.01)
            next(rows)
            started, before = time.perf_counter(), rows.counters["documents"]
            for _ in range(num_rows):
                next(rows)
            seconds = time.perf_counter() - started
            fill = rows.counters["positions"] / (rows.counters["rows"] * context_length)
            documents = (rows.counters["documents"] - before) / seconds
            each = 1000 * seconds / num_rows
            print(f"  {context_length:5} {window:4} → {fill:.2%}; {each:.2f} ms; {documents:.0f} documents/s")


def best_fit_alone() -> None:
    from data.packing import best_fit

    print("best fit alone")
    rng = np.random.default_rng(0)
    for context_length, window, mean in ((352, 64, 100), (2048, 256, 100), (8192, 256, 800)):
        lengths = [rng.integers(mean // 2, 3 * mean // 2, window).tolist() for _ in range(50)]
        started = time.perf_counter()
        for some in lengths:
            best_fit(some, context_length)
        print(f"  {context_length:5} {window:4}: {1000 * (time.perf_counter() - started) / 50:.2f} ms a row")


def throughput(run: Path, vocabulary: Vocabulary, num_steps: int) -> None:
    config = DataConfig(mixture_of(run)[1:2], 352, 8)
    store = CodeStore.open(config.sources[0].codes)
    order = np.random.default_rng(0).permutation(len(store)).tolist()
    started = time.perf_counter()
    for index in order:
        store.codes(index)
    bare = len(order) / (time.perf_counter() - started)
    print(f"bare read of codes: {bare:.0f} images/s")
    for workers in (0, 1, 2):
        loader = iter(Loader(DataConfig(config.sources, 352, 8, workers=workers), vocabulary))
        next(loader)
        started = time.perf_counter()
        documents = sum(step.num_documents for step in islice(loader, num_steps))
        rate = documents / (time.perf_counter() - started)
        print(f"loader, workers={workers}: {rate:.0f} packed documents/s, {rate / bare:.2f} of the bare read")


def synthetic_store(folder: Path, num: int) -> None:
    """Images of one position and one code, so that the disk holds them; the index is as long as that of large ones."""
    codes, text = datasets.List(datasets.Value("uint16"), 1), datasets.Value("string")
    features = datasets.Features(
        {"key": text, "pixel": codes, "semantic": codes, "captions": datasets.List(text), "metadata": text}
    )
    folder.mkdir(parents=True)
    captions = pa.array([["a red apple"]] * ROWS_OF_A_BATCH, pa.list_(pa.string()))
    flat = pa.array(np.zeros(ROWS_OF_A_BATCH, np.uint16))
    branch, metadata = pa.FixedSizeListArray.from_arrays(flat, 1), pa.array(["{}"] * ROWS_OF_A_BATCH)
    writer = ArrowWriter(features=features, path=str(folder / "data-00000-of-00001.arrow"))
    for start in range(0, num, ROWS_OF_A_BATCH):
        keys = pa.array([f"{index:09d}" for index in range(start, start + ROWS_OF_A_BATCH)])
        columns = [keys, branch, branch, captions, metadata]
        writer.write_table(pa.table(dict(zip(features, columns, strict=True)), schema=features.arrow_schema))
    writer.finalize()
    state = dict.fromkeys(("_fingerprint", "_format_type", "_format_columns", "_output_all_columns", "_split"))
    state |= {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_format_kwargs": {}}
    state |= {"_fingerprint": "synthetic", "_output_all_columns": False}
    (folder / "state.json").write_text(json.dumps(state))
    datasets.DatasetInfo(features=features).write_to_directory(str(folder))
    facts = {"tokenizer_id": "t", "transform": "", "num_patches": 1, "grid": [1, 1], "depth": 1, "codebook_size": 8}
    (folder / PROVENANCE).write_text(json.dumps({**facts, "source": "synthetic"}))


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def ten_million(vocabulary: Vocabulary, num: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "codes"
        synthetic_store(path, num)
        size = sum(file.stat().st_size for file in path.iterdir()) / 2**30
        print(f"{num:,} synthetic samples, {size:.2f} GiB")
        before, started = peak_megabytes(), time.perf_counter()
        store = CodeStore.open(path)
        print(f"  open the store: {time.perf_counter() - started:.2f} s, {peak_megabytes() - before:.0f} MB more")
        sources = [SourceConfig("caption", str(path)), SourceConfig("draw", str(path), weight=3.0)]
        config, started = DataConfig(sources, 512, 8), time.perf_counter()
        loader = Loader(config, vocabulary)
        step = next(iter(loader))
        print(
            f"  a loader's first step: {time.perf_counter() - started:.2f} s, "
            f"{peak_megabytes() - before:.0f} MB more ({step.num_documents} documents)"
        )
        state = json.loads(json.dumps(loader.state_dict()))
        state["counts"] = [int(0.9 * num), int(0.9 * num)]
        waiting = enumerate(state["rows"]["waiting"])
        state["rows"]["waiting"] = [[source, row, int(0.9 * num) - 1 - i] for i, (source, row, _) in waiting]
        started = time.perf_counter()
        resumed = Loader(config, vocabulary)
        resumed.load_state_dict(state)
        next(iter(resumed))
        print(f"  resume at 90 % of an epoch, to the first step: {time.perf_counter() - started:.2f} s")
        started = time.perf_counter()
        store.index_of(f"{num - 1:09d}")
        print(
            f"  the first look-up by key: {time.perf_counter() - started:.2f} s, "
            f"{peak_megabytes() - before:.0f} MB more"
        )


def pictures(run: Path) -> None:
    from tokenizer import DualTokenizer
    from train.picture_encoder import TokenizerEncoder

    encoder = TokenizerEncoder(DualTokenizer.from_pretrained(str(run / "tokenizer/export")))
    shard = sorted((Path(__file__).parents[1] / "assets/emoji").glob("train-*.tar.gz"))[0]
    with tarfile.open(shard) as tar:
        files = [tar.extractfile(m).read() for m in islice((m for m in tar if m.name.endswith(".webp")), 256)]
    encoder.encode([Image.open(io.BytesIO(files[0]))] * 16)
    started = time.perf_counter()
    encoder.encode([Image.open(io.BytesIO(file)).convert("RGB") for file in files])
    each = 1000 * (time.perf_counter() - started) / len(files)
    print(f"picture files: {each:.1f} ms a picture, tokenized on the fly")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/demo-long"))
    parser.add_argument("--parts", default="packing,fit,loader,index,pictures")
    parser.add_argument("--samples", type=int, default=NUM_SYNTHETIC)
    args = parser.parse_args()
    datasets.disable_progress_bars()
    vocabulary = Vocabulary.from_pretrained(args.run / "pretrain/vocabulary")
    parts = args.parts.split(",")
    if "index" in parts:  # first, so that memory is counted from a small process
        ten_million(vocabulary, args.samples)
    if "packing" in parts:
        packing(args.run, vocabulary, 400)
    if "fit" in parts:
        best_fit_alone()
    if "loader" in parts:
        throughput(args.run, vocabulary, 100)
    if "pictures" in parts:
        pictures(args.run)


if __name__ == "__main__":
    main()
