"""Steps of training and batches of validation.

A step is one global batch: world_size × accumulation × rows_per_batch consecutive rows of the global stream, which
depends on that product only. The micro-batch a of rank r is its slice a · world_size + r.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from data.batch import Batch
from data.documents import Document
from data.mixture import Draw, Mixture
from data.packing import collate
from data.sources import Source, SourceConfig, open_sources
from data.stream import RowStream
from data.vocabulary import Vocabulary


@dataclass(frozen=True)
class DataConfig:
    """What to train on, and how it is packed."""

    sources: list[SourceConfig]
    context_length: int = 512  # T
    rows_per_batch: int = 8  # rows of one micro-batch of one rank
    pack_window: int = 64  # documents among which a row is filled
    seed: int = 0
    max_bad_share: float = 0.01  # of unusable samples, above which the run stops

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("data.sources is empty: give at least one source")
        for name in ("context_length", "rows_per_batch", "pack_window"):
            if getattr(self, name) < 1:
                raise ValueError(f"data.{name}={getattr(self, name)} is too small: give at least 1")
        if self.seed < 0:
            raise ValueError(f"data.seed={self.seed} is negative")


@dataclass(frozen=True)
class Step:
    """One global batch, as one rank sees it."""

    micro_batches: list[Batch]  # this rank's, one per accumulation step
    num_targets: int  # of the global batch: the loss is divided by it
    num_documents: int  # of the global batch


def _shape(sources: list[Source]) -> tuple[int, int]:
    """Positions and depth of the images, (0, 0) where there are none."""
    shapes = {(s.store.num_patches, s.store.depth): str(s.store.path) for s in sources if s.store is not None}
    if len(shapes) > 1:
        raise ValueError(f"the code stores differ in [positions, depth]: {shapes}")
    return next(iter(shapes), (0, 0))


class Loader:
    """An endless iterator of steps whose state is small and exact, whatever the number of ranks that read it."""

    def __init__(
        self,
        config: DataConfig,
        vocabulary: Vocabulary,
        tokenizer_id: str | None = None,
        rank: int = 0,
        world_size: int = 1,
        accumulation: int = 1,
    ):
        self.config, self.vocabulary = config, vocabulary
        self.rank, self.world_size, self.accumulation = rank, world_size, accumulation
        self.sources = open_sources(config.sources, vocabulary, tokenizer_id)
        self.num_patches, self.depth = _shape(self.sources)
        self._state = self._snapshot(*self._stream(None))

    def _stream(self, state: dict[str, Any] | None) -> tuple[Mixture, RowStream]:
        config = self.config
        mixture = Mixture([len(s) for s in self.sources], [s.weight for s in config.sources], config.seed)
        rows = RowStream(
            self.sources, mixture, config.context_length, config.pack_window, config.seed, config.max_bad_share
        )
        if state is not None:
            mixture.counts = list(state["counts"])
            rows.load_state_dict(state["rows"])
        return mixture, rows

    def _snapshot(self, mixture: Mixture, rows: RowStream) -> dict[str, Any]:
        identity = {"sizes": mixture.sizes, "seed": mixture.seed}
        return {**identity, "counts": list(mixture.counts), "rows": rows.state_dict()}

    def _step(self, mixture: Mixture, rows: RowStream) -> tuple[Step, dict[str, Any]]:
        size = self.config.rows_per_batch
        step_rows = list(islice(rows, self.world_size * self.accumulation * size))
        documents = [document for row in step_rows for document in row]
        starts = range(self.rank * size, len(step_rows), self.world_size * size)
        step = Step(
            micro_batches=[self._collate(step_rows[start : start + size]) for start in starts],
            num_targets=sum(document.num_targets for document in documents),
            num_documents=len(documents),
        )
        return step, self._snapshot(mixture, rows)

    def _collate(self, rows: list[list[Document]]) -> Batch:
        return collate(rows, self.config.context_length, self.vocabulary.endoftext, self.num_patches, self.depth)

    def __iter__(self) -> Iterator[Step]:
        """The next step is made in the background; the state is that after the last step handed out."""
        position = self._stream(self._state)
        with ThreadPoolExecutor(max_workers=1) as background:
            ahead = background.submit(self._step, *position)
            while True:
                step, self._state = ahead.result()
                ahead = background.submit(self._step, *position)
                yield step

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers and lists: counters, and the draws that wait to be packed."""
        return self._state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        sizes = [len(source) for source in self.sources]
        if state["sizes"] != sizes or state["seed"] != self.config.seed:
            raise ValueError(
                f"the saved data position is of sources of {state['sizes']} documents and seed {state['seed']}, these "
                f"have {sizes} and {self.config.seed}: resume with the sources and seed of the run, or start a new run"
            )
        self._state = state

    def metrics(self) -> dict[str, float]:
        """Fill of the rows, dropped documents, and share and epochs of each source, so far."""
        counters, counts = self._state["rows"]["counters"], self._state["counts"]
        metrics = {
            "fill": counters["positions"] / max(counters["rows"] * self.config.context_length, 1),
            "num_bad": float(counters["bad"]),
            "num_overlong": float(counters["overlong"]),
        }
        for place, (source, count) in enumerate(zip(self.sources, counts, strict=True)):
            metrics[f"share.{place}.{source.name}"] = count / max(sum(counts), 1)
            metrics[f"epoch.{place}.{source.name}"] = count / len(source)
        return metrics


def validation_batches(
    config: DataConfig,
    vocabulary: Vocabulary,
    tokenizer_id: str | None = None,
    rank: int = 0,
    world_size: int = 1,
    num_documents: int | None = None,
) -> Iterator[Batch]:
    """One pass over the sources in order, packed, without dropped captions and with canonical ones.

    Every rank gets the same number of batches, the last ones filled up with rows of padding: under ZeRO-3 a rank
    without a batch would make the others wait forever. `num_documents` takes that many of each source, evenly spaced.
    """
    canonical = [replace(source, caption_dropout=0.0, caption_choice="first") for source in config.sources]
    sources = open_sources(canonical, vocabulary, tokenizer_id)
    num_patches, depth = _shape(sources)

    def draws() -> Iterator[Draw]:
        for place, source in enumerate(sources):
            count = min(len(source), num_documents or len(source))
            yield from (Draw(place, i * len(source) // count, 0) for i in range(count))

    rows = RowStream(sources, draws(), config.context_length, config.pack_window, config.seed, config.max_bad_share)
    size = config.rows_per_batch

    def batches() -> Iterator[Batch]:
        while group := list(islice(rows, world_size * size)):
            mine = group[rank * size : (rank + 1) * size]
            mine += [[] for _ in range(size - len(mine))]
            yield collate(mine, config.context_length, vocabulary.endoftext, num_patches, depth)

    return batches()  # so that a missing file is an error of this call, not of the first batch
