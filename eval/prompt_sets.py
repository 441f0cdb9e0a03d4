"""What a text-to-image benchmark is to the runner: official prompts, and where its evaluator looks for the pictures.

    geneval    evaluation_metadata.jsonl → 00000/metadata.jsonl, 00000/samples/0000.png … 0003.png
    dpg        a folder of ITEM.txt → grids/ITEM.png, which is pictures/ITEM/0000.png … 0003.png as 2 × 2
    mjhq       meta_data.json, {ID: {category, prompt}} → CATEGORY/ID.png
    prompts    lines of text, or of JSON with a `prompt` → 00000/0000.png …

The judges are networks that run elsewhere: `next_commands` says how to go on.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from data.decode import load_image
from eval.files import read_json, read_json_lines, read_text
from eval.picture_folders import save_whole

_CLIPSCORE = "dualtoken score clipscore --features F.npz --backbone NAME"


@dataclass(frozen=True)
class Prompt:
    id: str  # in the names of its pictures, and in their seeds
    text: str
    record: Mapping[str, Any]  # the official one


class PromptSet(ABC):
    """The prompts in `path`. Of each as many pictures as its protocol says, or `num_pictures` where it says nothing."""

    name: ClassVar[str]
    judge: ClassVar[str]  # what gives the marks
    official_prompts: ClassVar[int | None] = None
    official_pictures: ClassVar[int | None] = None  # of each prompt

    def __init__(self, path: str | Path, num_pictures: int = 1):
        self.path = Path(path)
        self.num_pictures = self.official_pictures or num_pictures

    def files(self) -> list[Path]:
        """The files that decide the prompts and their order."""
        return [self.path]

    @abstractmethod
    def prompts(self) -> list[Prompt]:
        """All of them, in the order of the files. Raises FileNotFoundError or ValueError."""

    @abstractmethod
    def picture(self, prompt: Prompt, number: int) -> str:
        """The path of a picture in the benchmark's folder."""

    def complete(self, prompt: Prompt, folder: Path) -> None:
        """Writes what else the evaluator reads of a prompt, once its pictures are there."""
        return None

    @abstractmethod
    def next_commands(self, folder: Path) -> list[str]:
        """What scores the pictures."""


class GenEval(PromptSet):
    name = "geneval"
    judge = "the detector Mask2Former and CLIP, run by github.com/djghosh13/geneval"
    official_prompts, official_pictures = 553, 4

    def prompts(self) -> list[Prompt]:
        rows = read_json_lines(self.path)
        for number, row in enumerate(rows, start=1):
            if not isinstance(row.get("tag"), str) or not isinstance(row.get("include"), list):
                raise ValueError(f"{self.path} row {number} has no `tag` or `include`: give evaluation_metadata.jsonl")
        return _numbered(rows, self.path)

    def picture(self, prompt: Prompt, number: int) -> str:
        return f"{prompt.id}/samples/{number:04d}.png"

    def complete(self, prompt: Prompt, folder: Path) -> None:
        (folder / prompt.id / "metadata.jsonl").write_text(json.dumps(prompt.record), encoding="utf-8")

    def next_commands(self, folder: Path) -> list[str]:
        results = f"{folder}-results.jsonl"
        return [
            f"python evaluation/evaluate_images.py {folder} --outfile {results} --model-path DETECTOR",
            f"dualtoken score geneval --results {results}",
        ]


class DPG(PromptSet):
    name = "dpg"
    judge = "the VQA model mPLUG-large, run by github.com/TencentQQGYLab/ELLA"
    official_prompts, official_pictures = 1065, 4

    def files(self) -> list[Path]:
        if not self.path.is_dir():
            raise FileNotFoundError(f"{self.path} is not a folder: DPG-bench's prompts are one .txt file each")
        return sorted(self.path.glob("*.txt"))

    def prompts(self) -> list[Prompt]:
        files = self.files()
        if not files:
            raise ValueError(f"{self.path} holds no .txt file: DPG-bench's prompts are one such file each")
        return [Prompt(path.stem, _text(read_text(path), str(path)), {}) for path in files]

    def picture(self, prompt: Prompt, number: int) -> str:
        return f"pictures/{prompt.id}/{number:04d}.png"

    def complete(self, prompt: Prompt, folder: Path) -> None:
        path = folder / f"grids/{prompt.id}.png"
        if path.is_file():
            return
        pictures = [load_image(folder / self.picture(prompt, number)) for number in range(self.num_pictures)]
        width, height = pictures[0].size
        grid = Image.new("RGB", (2 * width, 2 * height))
        for number, picture in enumerate(pictures):
            grid.paste(picture, (number % 2 * width, number // 2 * height))
        save_whole(grid, path)

    def next_commands(self, folder: Path) -> list[str]:
        grid = load_image(next((folder / "grids").glob("*.png")))
        return [
            f"bash dpg_bench/dist_eval.sh {folder}/grids {grid.width // 2}",
            f"dualtoken score dpg --answers {folder}/grids/*_results_detail.txt --csv dpg_bench/dpg_bench.csv",
        ]


class MJHQ(PromptSet):
    name = "mjhq"
    judge = "Inception features for FID and those of a CLIP for CLIPScore"
    official_prompts, official_pictures = 30_000, 1

    def prompts(self) -> list[Prompt]:
        records = read_json(self.path, unique_keys=True)
        if not isinstance(records, dict) or not records:
            raise ValueError(f"{self.path} is not a table {{id: {{category, prompt}}}}: give MJHQ-30K's meta_data.json")
        prompts = []
        for name, record in records.items():
            where = f"{self.path} {name!r}"
            if not isinstance(record, dict):
                raise ValueError(f"{where} is not {{category, prompt}}: give MJHQ-30K's meta_data.json")
            for part in (name, record.get("category")):
                if not isinstance(part, str) or part != Path(part).name or part.startswith("."):
                    raise ValueError(f"{where} has a category or an id that cannot be the name of a file")
            prompts.append(Prompt(name, _text(record.get("prompt"), where), record))
        return prompts

    def picture(self, prompt: Prompt, number: int) -> str:
        return f"{prompt.record['category']}/{prompt.id}.png"

    def next_commands(self, folder: Path) -> list[str]:
        return [
            f"dualtoken score mjhq --reference mjhq30k_imgs --images {folder} "
            "--inception-weights pt_inception-2015-12-05-6726825d.pth --protocol clean",
            _CLIPSCORE,
        ]


class PromptFile(PromptSet):
    name = "prompts"
    judge = "yours, or a CLIP's features for CLIPScore"

    def prompts(self) -> list[Prompt]:
        if self.path.suffix == ".jsonl":
            return _numbered(read_json_lines(self.path), self.path)
        lines = [line for line in read_text(self.path).split("\n") if line.strip()]
        if not lines:
            raise ValueError(f"{self.path} holds no prompts: write one a line")
        return _numbered([{"prompt": line} for line in lines], self.path)

    def picture(self, prompt: Prompt, number: int) -> str:
        return f"{prompt.id}/{number:04d}.png"

    def next_commands(self, folder: Path) -> list[str]:
        return [_CLIPSCORE]


PROMPT_SETS: dict[str, type[PromptSet]] = {kind.name: kind for kind in (GenEval, DPG, MJHQ, PromptFile)}


def _numbered(rows: Sequence[Mapping[str, Any]], path: Path) -> list[Prompt]:
    """Prompts 00000 … of rows with a `prompt`."""
    texts = [_text(row.get("prompt"), f"{path} row {number}") for number, row in enumerate(rows, start=1)]
    return [Prompt(f"{i:05d}", text, row) for i, (text, row) in enumerate(zip(texts, rows, strict=True))]


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where} has no prompt: every picture needs a text to be drawn from")
    return value.strip()
