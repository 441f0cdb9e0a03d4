"""The stream of rows: draws → documents → packed rows, with an exact and small state.

It is global: every rank runs the same stream and keeps its own rows, so that the number of ranks does not change the
data and each rank knows the targets of the whole batch without asking. The state holds counters and the documents that
wait in the window by name, not by content.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np

from data.documents import Document
from data.mixture import Draw
from data.packing import best_fit
from data.sources import Source

logger = logging.getLogger(__name__)

NUM_UNUSABLE_IN_A_ROW = 1000  # no mixture is meant to be dropped for so long


class RowStream:
    """An iterator of rows, each a list of documents that fill at most `context_length` positions.

    Unusable samples are skipped, counted and logged; a larger share than `max_bad_share` stops the run.
    Documents longer than a row are dropped and counted.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        draws: Iterator[Draw],
        context_length: int,
        window: int,
        seed: int,
        max_bad_share: float,
    ):
        self.sources, self.draws, self.seed = sources, draws, seed
        self.context_length, self.window, self.max_bad_share = context_length, window, max_bad_share
        self.waiting: list[tuple[Draw, Document]] = []
        self.packed = [0] * len(sources)  # documents of each source that came out in a row
        self.counters = dict.fromkeys(("drawn", "bad", "overlong", "rows", "documents", "positions"), 0)

    def __iter__(self) -> "RowStream":
        return self

    def __next__(self) -> list[Document]:
        self._fill_window()
        if not self.waiting:
            raise StopIteration
        chosen = set(best_fit([len(document) for _, document in self.waiting], self.context_length))
        row = [document for place, (_, document) in enumerate(self.waiting) if place in chosen]
        for place in chosen:
            self.packed[self.waiting[place][0].source] += 1
        self.waiting = [item for place, item in enumerate(self.waiting) if place not in chosen]
        self.counters["rows"] += 1
        self.counters["documents"] += len(row)
        self.counters["positions"] += sum(map(len, row))
        return row

    def _fill_window(self) -> None:
        num_unusable = 0
        while len(self.waiting) < self.window and num_unusable < NUM_UNUSABLE_IN_A_ROW:
            draw = next(self.draws, None)
            if draw is None:
                return
            self.counters["drawn"] += 1
            document = self._make(draw)
            if document is None:
                num_unusable += 1
                continue
            num_unusable = 0
            self.waiting.append((draw, document))
        if num_unusable:
            raise ValueError(
                f"the last {num_unusable} documents are all unusable or longer than context_length="
                f"{self.context_length}: raise context_length, or look at the warnings above"
            )

    def document(self, draw: Draw) -> Document:
        """The document of a draw: the same whenever it is made."""
        rng = np.random.default_rng((self.seed, draw.source, draw.index, draw.count))
        return self.sources[draw.source].document(draw.index, rng)

    def _make(self, draw: Draw) -> Document | None:
        try:
            document = self.document(draw)
            for image in document.images:
                image.store.check(image.index)  # here, where all ranks see the same, and not where one rank reads it
        except ValueError as error:
            self.counters["bad"] += 1
            if self.counters["bad"] > self.max_bad_share * max(self.counters["drawn"], 100):
                bad, drawn = self.counters["bad"], self.counters["drawn"]
                raise ValueError(f"{bad} of {drawn} samples are unusable, the last one: {error}") from error
            logger.warning("skipped a sample: %s", error)
            return None
        if len(document) > self.context_length:
            self.counters["overlong"] += 1
            logger.info("dropped %s: %d positions", document.key, len(document))
            return None
        return document

    def state_dict(self) -> dict[str, Any]:
        waiting = [list(astuple(draw)) for draw, _ in self.waiting]
        return {"waiting": waiting, "counters": dict(self.counters), "packed": list(self.packed)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        draws = [Draw(*draw) for draw in state["waiting"]]
        self.waiting = [(draw, self.document(draw)) for draw in draws]
        self.counters = dict(state["counters"])
        self.packed = list(state.get("packed", self.packed))  # absent in what older versions wrote
