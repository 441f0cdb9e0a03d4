"""What a benchmark is to the runner: official files → questions, and answers → official submission files.

Understanding is measured as in the paper (§4.3, Tab. 5), in the settings of LLaVA-1.5: greedy, the image first, then
the question with a suffix that asks for a short answer or for an option's letter.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from data.decode import IMAGE_ENDINGS

SHORT_ANSWER = "\nAnswer the question using a single word or phrase."
OPTION_LETTER = "\nAnswer with the option's letter from the given choices directly."


@dataclass(frozen=True)
class Question:
    """One question to the model and where it came from."""

    prompt: str  # what the model reads after the image, suffix included
    image: Path | bytes  # a file, or the bytes of one
    text: str  # the question as the official file has it
    reference: str  # the right answer, '' where it is not public
    group: Hashable  # questions with one group are only scored together: an image of MME, the rotations of MMBench
    is_yes_no: bool
    record: Any  # the official record


Respond = Callable[[Sequence[Question], int], Iterable[tuple[int, str]]]
"""(questions, max_new_tokens) → (place, answer) of each question, in any order, as they are made: all that the runner
needs of a model.
"""


class Benchmark(ABC):
    """One split of one benchmark: `folder` holds the official files, `images` the pictures.

    Without `images` these are in the folder itself, or beside it, under one of the names `image_folders`.
    """

    name: ClassVar[str]
    submissions: ClassVar[tuple[str, ...]]  # patterns of the names of all files that it ever writes
    headlines: ClassVar[tuple[str, ...]]  # names in the scorer's result, the most important first
    max_new_tokens: ClassVar[int] = 128
    image_folders: ClassVar[tuple[str, ...]] = ("images",)
    grader: ClassVar[str] = ""  # who gives the marks, where no scorer of ours can: there is never a number then

    def __init__(self, folder: str | Path, split: str, images: str | Path | None = None):
        self.folder = Path(folder)
        self.split = split
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{self.folder} is not a folder: the split {split!r} has no {self.name} here")
        if images is not None and not Path(images).is_dir():
            raise FileNotFoundError(f"{images} is not a folder: {self.name} has no pictures there")
        beside = [place / name for place in (self.folder.parent, self.folder) for name in self.image_folders]
        self.images = [Path(images)] if images is not None else beside

    @classmethod
    def clear(cls, out: Path) -> None:
        """Removes what an earlier call left in `out`, of other splits too, lest it be taken for this one's."""
        for pattern in (*cls.submissions, "score.json"):
            for path in out.glob(pattern):
                path.unlink()

    @abstractmethod
    def question_files(self) -> list[Path]:
        """The official files that decide the questions, their order and their answers."""

    @abstractmethod
    def questions(self) -> list[Question]:
        """All questions of the split, in the order of the official files."""

    @abstractmethod
    def write(self, questions: Sequence[Question], predictions: Sequence[str], out: Path) -> None:
        """Writes the official submission files into the folder `out`, which exists."""

    def write_upload(self, questions: Sequence[Question], predictions: Sequence[str], out: Path) -> None:
        """Writes beside them what a server takes instead, where that is not what our scorer reads."""
        return None

    @abstractmethod
    def score(self, questions: Sequence[Question], out: Path) -> dict[str, Any]:
        """What the scorer says of the submission files of these questions."""

    @abstractmethod
    def correctness(self, question: Question, prediction: str) -> float:
        """The score in [0, 1] of one answer by itself."""

    def chance(self, questions: Sequence[Question]) -> dict[str, float] | None:
        """The headlines expected of a uniform random choice; None where answers are free text."""
        return None

    def require(self, row: dict[str, Any], path: Path, **kinds: type) -> None:
        """Raises ValueError unless the official record has these fields with these types."""
        for key, kind in kinds.items():
            if not isinstance(row.get(key), kind):
                raise ValueError(f"{path} has an entry without a valid {key!r} ({str(row)[:80]}): it is another format")

    def find_image(self, name: str, *folders: Path) -> Path:
        """The picture called `name` in one of the folders or among the benchmark's, with whatever image suffix."""
        places = (*folders, *self.images)
        stem = Path(name).stem
        for folder in places:
            for candidate in (name, *(f"{stem}.{ending}" for ending in IMAGE_ENDINGS)):
                if (folder / candidate).is_file():
                    return folder / candidate
        raise FileNotFoundError(
            f"{self.name} asks about the image {name}, which is not in {' or '.join(map(str, places))}"
        )


class Answered(NamedTuple):
    benchmark: Benchmark
    question: Question
    prediction: str

    @property
    def correctness(self) -> float:
        return self.benchmark.correctness(self.question, self.prediction)
