"""Steps of training.

A step is one global batch: world_size × accumulation × rows_per_batch consecutive rows of the global stream, which
depends on that product only. The micro-batch a of rank r is its slice a · world_size + r.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice, repeat
from typing import Any

from data.batch import Batch
from data.documents import Document
from data.mixture import Mixture
from data.ordered_map import ordered_map
from data.packing import collate
from data.picture_files import PictureEncoder, PictureFiles
from data.source_config import SourceConfig
from data.sources import Source, open_sources
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
    workers: int = 1  # threads that read codes and tokenize picture files; 0: no step is made ahead
    prefetch: int = 1  # steps made ahead

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("data.sources is empty: give at least one source")
        for name in ("context_length", "rows_per_batch", "pack_window", "prefetch"):
            if getattr(self, name) < 1:
                raise ValueError(f"data.{name}={getattr(self, name)} is too small: give at least 1")
        for name in ("seed", "workers"):
            if getattr(self, name) < 0:
                raise ValueError(f"data.{name}={getattr(self, name)} is negative")


@dataclass(frozen=True)
class Step:
    """One global batch, as one rank sees it."""

    micro_batches: list[Batch]  # this rank's, one per accumulation step
    num_targets: int  # of the global batch: the loss is divided by it
    num_documents: int  # of the global batch


Made = tuple[Step, dict[str, Any]]  # a step, and the state after it
Mapper = Callable[[Callable[[list[list[Document]]], Batch], Iterable[list[list[Document]]]], Iterable[Batch]]


def image_shape(sources: list[Source]) -> tuple[int, int]:
    """Positions and depth of the images, (0, 0) where there are none."""
    names: dict[tuple[int, int, int], str] = {}  # of the last source of each height, width and depth
    for source in sources:
        for store in source.stores:
            if isinstance(store, PictureFiles) and store.encoder is None:
                raise ValueError(f"the picture files of the source {source.name!r} need a tokenizer, and none is given")
            names[(*store.grid, store.depth)] = source.name
    if len(names) > 1:
        shown = " and ".join(f"{h}×{w} positions × {depth} of {name!r}" for (h, w, depth), name in names.items())
        raise ValueError(f"the sources differ in the grid or the depth of their codes: {shown}; tokenize them alike")
    height, width, depth = next(iter(names), (0, 0, 0))
    return height * width, depth


class Loader:
    """An iterator of steps whose state is small and exact, whatever the number of ranks and of threads that read it.

    It ends when every source has been seen as often as its `epochs` say, and never if one of them repeats for ever.
    """

    def __init__(
        self,
        config: DataConfig,
        vocabulary: Vocabulary,
        tokenizer_id: str | None = None,
        rank: int = 0,
        world_size: int = 1,
        accumulation: int = 1,
        encoder: PictureEncoder | None = None,
        pin_memory: bool = False,
    ):
        self.config, self.vocabulary, self.pin_memory = config, vocabulary, pin_memory
        self.rank, self.world_size, self.accumulation = rank, world_size, accumulation
        self.sources = open_sources(config.sources, vocabulary, tokenizer_id, encoder, config.max_bad_share)
        self.shape = image_shape(self.sources)
        if self.shape[0] + 2 > config.context_length and self.shape[0]:
            raise ValueError(
                f"data.context_length={config.context_length} is shorter than an image, which takes {self.shape[0]} "
                "positions and two delimiters: raise it, or remove the sources with images"
            )
        self._state = self._snapshot(*self._stream(None))

    def _stream(self, state: dict[str, Any] | None) -> tuple[Mixture, RowStream]:
        config, sizes = self.config, [len(s) for s in self.sources]
        weights, epochs = [s.weight for s in config.sources], [s.epochs for s in config.sources]
        mixture = Mixture(sizes, weights, config.seed, epochs)
        rows = RowStream(
            self.sources, mixture, config.context_length, config.pack_window, config.seed, config.max_bad_share
        )
        if state is not None:
            mixture.load_state_dict(state)
            rows.load_state_dict(state["rows"])
        return mixture, rows

    def _snapshot(self, mixture: Mixture, rows: RowStream) -> dict[str, Any]:
        identity = {"sizes": mixture.sizes, "seed": mixture.seed}
        return {**identity, **mixture.state_dict(), "rows": rows.state_dict()}

    def _step(self, mixture: Mixture, rows: RowStream, mapper: Mapper) -> Made | None:
        """The next step; the last one is filled up with rows of padding, so that every rank has equal batches."""
        size, num_rows = self.config.rows_per_batch, self.world_size * self.accumulation * self.config.rows_per_batch
        step_rows = list(islice(rows, num_rows))
        if not step_rows:
            return None
        step_rows += [[] for _ in range(num_rows - len(step_rows))]
        documents = [document for row in step_rows for document in row]
        starts = range(self.rank * size, num_rows, self.world_size * size)
        step = Step(
            micro_batches=list(mapper(self._collate, (step_rows[start : start + size] for start in starts))),
            num_targets=sum(document.num_targets for document in documents),
            num_documents=len(documents),
        )
        return step, self._snapshot(mixture, rows)

    def _collate(self, rows: list[list[Document]]) -> Batch:
        batch = collate(rows, self.config.context_length, self.vocabulary.endoftext, *self.shape)
        return batch.pin_memory() if self.pin_memory else batch

    def __iter__(self) -> Iterator[Step]:
        """Steps are made in the background, in their order; the state is that after the last step handed out."""
        for step, state in self._made_ahead() if self.config.workers else self._made_at_once():
            self._state = state
            yield step

    def _made_at_once(self) -> Iterator[Made]:
        position = self._stream(self._state)
        while made := self._step(*position, map):
            yield made

    def _made_ahead(self) -> Iterator[Made]:
        position = self._stream(self._state)
        with ThreadPoolExecutor(self.config.workers) as readers:
            steps = ordered_map(lambda _: self._step(*position, readers.map), repeat(None), 1, self.config.prefetch)
            with closing(steps):  # a reader that leaves does not wait for what it will not read
                for made in steps:
                    if made is None:
                        return
                    yield made

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
        """Fill of the rows, dropped documents, and of each source, so far, its share of the documents in rows and how
        often its documents were drawn, dropped ones and those that wait for a row included."""
        counters, counts = self._state["rows"]["counters"], self._state["counts"]
        packed = self._state["rows"].get("packed", [0] * len(counts))
        metrics = {
            "fill": counters["positions"] / max(counters["rows"] * self.config.context_length, 1),
            "num_bad": float(counters["bad"]),
            "num_overlong": float(counters["overlong"]),
        }
        files = {id(f): f for source in self.sources for f in source.stores if isinstance(f, PictureFiles)}
        if files:  # of this process, since it started
            metrics["num_bad_pictures"] = float(sum(folder.num_bad for folder in files.values()))
            metrics["num_tokenized"] = float(sum(folder.num_encoded for folder in files.values()))
        for place, (source, count) in enumerate(zip(self.sources, counts, strict=True)):
            metrics[f"share.{place}.{source.name}"] = packed[place] / max(sum(packed), 1)
            metrics[f"epoch.{place}.{source.name}"] = count / len(source)
        return metrics
