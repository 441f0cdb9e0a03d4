"""Benchmarks and training conversations from the shipped emoji, in the official formats; seconds, no network.

    python -m data.emoji_benchmarks --shards assets/emoji --out runs/demo/benchmarks

    OUT/{split}/images/COCO_{split}_{image_id:012d}.png      pictures of the split's questions
    OUT/{split}/vqav2/   v2_OpenEnded_mscoco_{split}_questions.json, v2_mscoco_{split}_annotations.json
    OUT/{split}/mme/TASK/questions_answers_YN/*.txt, images/
    OUT/{split}/pope/coco_pope_{random,popular,adversarial}.json
    OUT/{split}/mmbench/mmbench.tsv
    OUT/{split}/seed/SEED-Bench.json, mmvet/mm-vet.json
    OUT/train/llava.json                                     conversations about all training pictures
    OUT/manifest.json                                        what was written, in numbers

Splits: `train`, `unseen_concept` (the subject was never trained on), `unseen_style` (it was, in the other style).
Everything is drawn from (seed, picture), so that the questions about one picture do not depend on the others.
"""

import argparse
import io
import json
import random
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data.emoji_formats import (
    MME_TASKS,
    Picture,
    conversation,
    write_mmbench,
    write_mme,
    write_pictures,
    write_pope,
    write_vqav2,
)
from data.emoji_more_formats import write_mmvet, write_seed
from data.emoji_questions import Choice, Question, QuestionMaker
from data.emoji_splits import SPLITS
from data.shards import RawSample, iterate_shards

POPE_NEGATIVES = ("random", "popular", "adversarial")


class SplitQuestions:
    """All questions about the pictures of one split, each benchmark about `limit` of them at most."""

    def __init__(self, split: str, samples: list[RawSample], maker: QuestionMaker, limit: int, seed: int) -> None:
        self.split, self.maker, self.limit, self.seed = split, maker, limit, seed
        self.all_samples = random.Random(f"{seed} pictures {split}").sample(samples, len(samples))
        self.samples = self.all_samples[:limit]

    def _rng(self, purpose: str, key: str) -> random.Random:
        return random.Random(f"{self.seed} {purpose} {key}")

    def write(self, folder: Path) -> dict[str, Any]:
        """Writes the six benchmarks and returns their counts."""
        pictures = [_picture(sample) for sample in self.samples]
        write_pictures(folder, self.split, pictures)
        answer_types = write_vqav2(
            folder, self.split, [(picture, self._vqav2(sample)) for picture, sample in self._paired(pictures)]
        )
        mme = {task: self._write_mme(folder, task, kind) for task, kind in MME_TASKS.items()}
        for negatives in POPE_NEGATIVES:
            asked = [item for pair in self._paired(pictures) for item in self._pope(negatives, *pair)]
            write_pope(folder, self.split, negatives, asked)
        write_mmbench(
            folder, self.split, [(picture, self._choice(sample)) for picture, sample in self._paired(pictures)]
        )
        more = {
            "seed": write_seed(folder, self.split, [(p, self._choice(s, "seed")) for p, s in self._paired(pictures)]),
            "mmvet": write_mmvet(folder, self.split, [(p, self._spoken(s)) for p, s in self._paired(pictures)]),
        }
        return {
            **more,
            "pictures": len(pictures),
            "vqav2": answer_types,
            "mme_pictures": mme,
            "pope_questions_per_file": 2 * len(pictures),
            "mmbench": {"questions": len(pictures), "rows": 4 * len(pictures)},
        }

    def _paired(self, pictures: list[Picture]) -> Iterator[tuple[Picture, RawSample]]:
        return zip(pictures, self.samples, strict=True)

    def _write_mme(self, folder: Path, task: str, kind: str) -> int:
        """Colours and numbers are rare, so the pictures for a task come from the whole split."""
        fitting = [sample for sample in self.all_samples if kind in self.maker.kinds(sample.metadata)][: self.limit]
        asked = [(_picture(sample), *self._pair(kind, sample, f"mme {task}")) for sample in fitting]
        if asked:
            write_mme(folder, self.split, task, asked)
        return len(asked)

    def _pair(self, kind: str, sample: RawSample, purpose: str) -> tuple[Question, Question]:
        rng = self._rng(purpose, sample.key)
        return self.maker.yes(kind, sample.metadata), self.maker.no(kind, sample.metadata, rng)

    def _vqav2(self, sample: RawSample) -> list[Question]:
        """Open questions of every kind; yes/no pairs about the subject and about one other kind."""
        kinds = self.maker.kinds(sample.metadata)
        other = self._rng("vqav2 kind", sample.key).choice(kinds[1:])
        return [
            *(self.maker.open(kind, sample.metadata) for kind in kinds),
            *self._pair("subject", sample, "vqav2"),
            *self._pair(other, sample, "vqav2"),
        ]

    def _pope(self, negatives: str, picture: Picture, sample: RawSample) -> list[tuple[Picture, Question]]:
        rng = self._rng(f"pope {negatives}", sample.key)
        return [
            (picture, self.maker.yes("subject", sample.metadata)),
            (picture, self.maker.no("subject", sample.metadata, rng, negatives)),
        ]

    def _spoken(self, sample: RawSample) -> Question:
        """An open question of any kind."""
        kinds = self.maker.kinds(sample.metadata)
        return self.maker.open(self._rng("mmvet", sample.key).choice(kinds), sample.metadata)

    def _choice(self, sample: RawSample, purpose: str = "mmbench") -> Choice:
        """One in two asks for the subject, the others for something else."""
        rng = self._rng(purpose, sample.key)
        kinds = self.maker.kinds(sample.metadata)
        return self.maker.choice(rng.choice(["subject", rng.choice(kinds[1:])]), sample.metadata, rng)


def training_conversations(sample: RawSample, maker: QuestionMaker, seed: int) -> list[dict[str, Any]]:
    """Two records that judge statements about the subject and one thing more, and one that describes the picture."""
    rng = random.Random(f"{seed} llava {sample.key}")
    kinds = maker.kinds(sample.metadata)[1:]
    records: list[Sequence[Question | Choice]] = []
    records += [_statements(["subject", kind], sample, maker, rng) for kind in rng.sample(kinds, 2)]
    describing = [_describe(kind, sample, maker, rng) for kind in rng.sample(kinds, len(kinds))]
    describing.append(_describe("subject", sample, maker, rng))  # last, for the name answers all the others
    return [conversation(sample.key, number, turns) for number, turns in enumerate([*records, describing])]


def _statements(kinds: list[str], sample: RawSample, maker: QuestionMaker, rng: random.Random) -> list[Question]:
    """A true and a false statement of each kind, side by side: only the picture tells the two apart.

    Asked one by one, they were not learned at all (docs/decisions.md).
    """
    pairs = [(maker.yes(kind, sample.metadata), maker.no(kind, sample.metadata, rng)) for kind in kinds]
    return [question for pair in rng.sample(pairs, len(pairs)) for question in rng.sample(pair, 2)]


def _describe(kind: str, sample: RawSample, maker: QuestionMaker, rng: random.Random) -> Question | Choice:
    """An open question, or, one time in four, one with four options."""
    return maker.choice(kind, sample.metadata, rng) if rng.random() < 0.25 else maker.open(kind, sample.metadata)


def build(shards: Path, out: Path, pictures_per_split: int, seed: int) -> dict[str, Any]:
    """Writes everything below `out`, in place of what an earlier call wrote there, and returns the manifest."""
    if pictures_per_split < 1:
        raise ValueError(f"pictures per split must be at least 1, not {pictures_per_split}")
    samples = {split: list(watched(iterate_shards(str(shards / f"{split}-*.tar.gz")), split)) for split in SPLITS}
    maker = QuestionMaker(sample.metadata for sample in samples["train"])
    if (out / "manifest.json").is_file():
        for split in json.loads((out / "manifest.json").read_text(encoding="utf-8"))["splits"].keys() & set(SPLITS):
            shutil.rmtree(out / split, ignore_errors=True)
    manifest: dict[str, Any] = {"seed": seed, "splits": {}}
    for split in SPLITS:
        questions = SplitQuestions(split, samples[split], maker, pictures_per_split, seed)
        manifest["splits"][split] = questions.write(out / split)
    trained = watched(samples["train"], "conversations")
    records = [record for sample in trained for record in training_conversations(sample, maker, seed)]
    random.Random(f"{seed} records").shuffle(records)
    (out / "train" / "llava.json").write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
    num_questions = sum(len(record["conversations"]) // 2 for record in records)
    manifest["llava"] = {"pictures": len(samples["train"]), "records": len(records), "questions": num_questions}
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return manifest


def watched(samples: Iterable[RawSample], desc: str) -> Iterable[RawSample]:
    """With a bar, where somebody watches."""
    return tqdm(samples, desc=desc, unit="picture", disable=None)


def _picture(sample: RawSample) -> Picture:
    buffer = io.BytesIO()
    sample.image.save(buffer, "PNG")
    return Picture(sample.key, sample.metadata["image_id"], buffer.getvalue())


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Write questions about the emoji in the official benchmark formats.")
    parser.add_argument("--shards", type=Path, default=Path("assets/emoji"), help="folder of the emoji shards")
    parser.add_argument("--out", type=Path, required=True, help="folder for the benchmarks")
    parser.add_argument("--pictures-per-split", type=int, default=200, help="pictures that each benchmark asks about")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def main() -> None:
    parser = build_parser()
    options = parser.parse_args()
    try:
        manifest = build(options.shards, options.out, options.pictures_per_split, options.seed)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(json.dumps(manifest, indent=2))


if __name__ == "__main__":
    main()
