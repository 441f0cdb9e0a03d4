"""Images from captions (arXiv 2503.14324, section 3.3): a batch at once, whole or row by row as they are drawn."""

from collections.abc import Iterator, Sequence

from data.vocabulary import Vocabulary
from heads.sampling import SamplingConfig
from mllm.drawing import Drawing
from mllm.model import UnifiedModel
from mllm.prompts import Prompt
from tokenizer import DualCodes


def generate_images(
    model: UnifiedModel,
    vocabulary: Vocabulary,
    captions: Sequence[str],
    sampling: SamplingConfig,
    seeds: Sequence[int],
) -> DualCodes:
    """Codes int64[B, N, D] per branch of one image per caption and seed."""
    (codes,) = stream_images(model, vocabulary, captions, sampling, seeds, num_rows=model.visual.grid[0])
    return codes


def stream_images(
    model: UnifiedModel,
    vocabulary: Vocabulary,
    captions: Sequence[str],
    sampling: SamplingConfig,
    seeds: Sequence[int],
    num_rows: int = 1,
    prefix: DualCodes | None = None,
) -> Iterator[DualCodes]:
    """The codes so far, int64[B, p, D] per branch, after every `num_rows` rows of the images and at the end.

    What was yielded last is a `prefix` for another call: with the same captions, seeds and settings it ends with the
    same codes as if it had not been stopped. A wrong argument is a ValueError at once, not at the first row.
    """
    if not captions or not all(caption.strip() for caption in captions):
        raise ValueError("a caption to draw is empty: say in a few words what the picture should show.")
    if len(seeds) != len(captions):
        raise ValueError(f"there are {len(captions)} captions but {len(seeds)} seeds: give one seed per caption.")
    if num_rows < 1:
        raise ValueError(f"num_rows={num_rows} must be at least 1.")
    prompts = [Prompt(vocabulary.drawing_prompt(caption)) for caption in captions]
    return Drawing(model, vocabulary, prompts, sampling, seeds, prefix).rows(num_rows)
