"""How many yes/no questions of a demo can its tower answer? What the unified model's figure is to be read against.

    python -m benchmarks.yes_no_ceiling runs/demo [--split unseen_style] [--json OUT]

A statement counts as true of a picture that is near enough to the mean feature of the training captions, or of the
training pictures, of which it is true; what is near enough is chosen for each kind of question on these very questions,
so that the figures are upper bounds for whoever compares through this tower. `tower`: continuous features. `quantized`:
those of the semantic codes, which is what the language model reads.
"""

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.timing import write_json
from data.decode import load_image
from data.emoji_questions import QuestionMaker
from data.image_batches import ImageSet
from data.images import ImageTransform
from eval.judge import Judge
from eval.measure import Instruments
from eval.runner import open_benchmarks
from tokenizer import DualTokenizer

BATCH = 64


def statements(maker: QuestionMaker, images: ImageSet) -> dict[str, tuple[str, list[int]]]:
    """A question → its kind, and the training pictures of which the answer is yes."""
    found: dict[str, tuple[str, list[int]]] = {}
    for index, metadata in enumerate(images.metadata):
        for kind in maker.kinds(metadata):
            found.setdefault(maker.yes(kind, metadata).text, (kind, []))[1].append(index)
    return found


def best_accuracy(scores: np.ndarray, is_yes: np.ndarray) -> float:
    """With the best of all thresholds: float[N], bool[N] → [0, 1]."""
    gains = np.where(is_yes[np.argsort(-scores, kind="stable")], 1, -1)
    return float((max(0, np.cumsum(gains).max()) + (~is_yes).sum()) / len(is_yes))


def image_features(instruments: Instruments, pixel_values: Tensor) -> dict[str, Tensor]:
    """float[N, 3, h, w] → `quantized` and `tower` float[N, d]."""
    batches = [instruments.features(batch) for batch in pixel_values.split(BATCH)]
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--split", default="unseen_style")
    parser.add_argument("--shards", default="assets/emoji/train-*.tar.gz")
    parser.add_argument("--json")
    args = parser.parse_args()
    tokenizer = DualTokenizer.from_pretrained(args.run / "tokenizer/export")
    instruments = Instruments(tokenizer, Judge(str(args.run / "tower/export")), None, None)
    transform = ImageTransform(tokenizer.image_size, tokenizer.config.crop)
    images = ImageSet(args.shards, transform)
    known = statements(QuestionMaker(images.metadata), images)
    everything = [q for b in open_benchmarks(args.run / "benchmarks", args.split) for q in b.questions() if q.is_yes_no]
    questions = [question for question in everything if question.text in known]
    files = sorted({question.image for question in questions})
    asked = image_features(instruments, torch.stack([transform(load_image(f)) for f in files]))
    captions = instruments.judge.texts([metadata["captions"][0] for metadata in images.metadata])
    pictures = image_features(instruments, images.batch(list(range(len(images)))).pixel_values)
    is_yes = np.array([question.reference.lower() == "yes" for question in questions])
    kinds = np.array([known[question.text][0] for question in questions], dtype=object)
    places = torch.tensor([files.index(question.image) for question in questions])
    result: dict[str, Any] = {
        "questions": len(everything),
        "left out": len(everything) - len(questions),
    }  # true of no training picture
    for name, features in asked.items():
        for source, examples in (("captions", captions), ("pictures", pictures[name])):
            means = torch.stack([F.normalize(examples[known[q.text][1]].mean(0), dim=-1) for q in questions])
            scores = (features[places] * means).sum(-1).numpy()
            of_kind = {kind: best_accuracy(scores[kinds == kind], is_yes[kinds == kind]) for kind in sorted(set(kinds))}
            share = Counter(kinds.tolist())
            mean = sum(of_kind[kind] * count for kind, count in share.items()) / len(questions)
            result[f"{name}, {source}"] = {"all": mean, **of_kind}
            shown = ", ".join(f"{kind} {value:.2f} of {share[kind]}" for kind, value in of_kind.items())
            print(f"{name:10s} against {source}: {mean:.3f}   {shown}")
    write_json(args.json, result)


if __name__ == "__main__":
    main()
