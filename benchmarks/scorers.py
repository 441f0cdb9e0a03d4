"""How long each scorer takes on 100,000 rows: python benchmarks/scorers.py (a table; nothing passes or fails by it)."""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from eval import dpg, geneval, mmbench, mme, mmvet, pope, reconstruction, retrieval, seed, vqav2, zero_shot
from eval.frechet import Moments, frechet_distance
from eval.geneval_rules import decide

ROWS = 100_000


def features(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


def cases(folder: Path) -> dict[str, Callable[[], Any]]:
    rng = np.random.default_rng(0)
    people = [{"answer": "cat" if i % 3 else "a dog", "answer_id": i} for i in range(10)]
    annotations = [
        {"question_id": i, "answers": people, "answer_type": "other", "question_type": "what"} for i in range(ROWS)
    ]
    predictions = {i: f"cat {i % 50}" for i in range(ROWS)}
    options = {"A": "cat", "B": "dog", "C": "cow", "D": "owl"}
    bench = [
        mmbench.Row(i % (ROWS // 4) + i // (ROWS // 4) * 1_000_000, "", "", options, "A", "x", "A") for i in range(ROWS)
    ]
    metadata = {"tag": "colors", "include": [{"class": "dog", "count": 1, "color": "red"}]}
    found = [{"class": "dog", "box": [0, 0, 9, 9], "score": 0.5 + i / 99, "color": "red"} for i in range(5)]
    judged = [{"tag": geneval.TAGS[i % 6], "correct": bool(i % 2), "metadata": str(i // 4)} for i in range(ROWS)]
    questions = {
        str(i): {j: dpg.Question([1] if j > 1 else [], "entity - whole") for j in range(1, 6)}
        for i in range(ROWS // 20)
    }
    answers = {name: {k: dict.fromkeys(own, "yes") for k in range(4)} for name, own in questions.items()}
    images, texts = features(rng, ROWS // 5, 64), features(rng, ROWS, 64)
    pair = rng.random((20, 3, 256, 256)), rng.random((20, 3, 256, 256))
    big = features(rng, ROWS, 64), features(rng, 1000, 64), rng.integers(0, 1000, ROWS)
    inception = features(rng, ROWS, 2048)
    return {
        "vqav2": lambda: vqav2.score(annotations, predictions),
        "mme": lambda: mme.score({"OCR": [mme.Row(str(i // 2), str(i), "Yes", "yes") for i in range(ROWS)]}),
        "pope": lambda: pope.score({"random": [pope.Row("yes", "No, it is not.")] * ROWS}),
        "mmbench": lambda: mmbench.score(bench),
        "seed": lambda: seed.score([seed.Row("Scene", options, "A", "A. cat")] * ROWS),
        "mmvet": lambda: mmvet.score(
            {str(i): {"score": [0.5]} for i in range(ROWS)}, {str(i): ["ocr"] for i in range(ROWS)}
        ),
        "zeroshot (1,000 classes, d 64)": lambda: zero_shot.accuracy(*big, k=5),
        "retrieval (20,000 images, d 64)": lambda: retrieval.recall(images, texts, np.arange(ROWS) // 5),
        "fid (2,048 dimensions, both sides)": lambda: frechet_distance(*(Moments.of(inception) for _ in range(2))),
        "geneval summary": lambda: geneval.score(judged),
        "geneval rules": lambda: [decide(found, metadata) for _ in range(ROWS)],
        "dpg": lambda: dpg.score(questions, answers),
        "reconstruction (20 pictures of 256²)": lambda: reconstruction.score(
            [(pair[0][i : i + 1], pair[1][i : i + 1]) for i in range(20)]
        ),
    }


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    print("| scorer | seconds |\n|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, case in cases(Path(folder)).items():
            start = time.perf_counter()
            case()
            print(f"| {name} | {time.perf_counter() - start:.2f} |", flush=True)


if __name__ == "__main__":
    main()
