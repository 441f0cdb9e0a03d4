"""A code store written in parts, one for each shard of its source, by any number of processes.

    .NAME.parts/00000/   a store of its own (data/codes.py), whole or absent; the number is that of the shard
    NAME/                the same folder, once every part is there and a state.json names the files of all of them;
                         statistics.json and conversations.jsonl join what the parts hold

Nothing is copied at the end, and what a kill leaves of a run is used by the next one. A part holds the rows of its
shard and how many of its samples were bad, and nothing else, so neither the number of processes nor a restart changes
the store. A shard without a usable sample has a part without rows.
"""

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from data.code_counts import COUNTS, STATISTICS, CodeCounts, read_totals
from data.codes import CONVERSATIONS, PROVENANCE, CodeWriter, publish_store, refuse_foreign_folder
from data.sample_health import Health
from data.shard_names import modified, split_part

STATE, INFO = "state.json", "dataset_info.json"  # of `datasets.load_from_disk`


class CodeParts:
    """The parts of the store that is to stand at `path`, by the shard that each is read from.

    parts.discard_outdated()            one process, before any other continues
    for shard in parts.missing():       any processes, each shard by one of them
        with parts.writer(shard) as writer: ...
    parts.publish()                     one process, after all
    """

    def __init__(self, path: str | Path, provenance: Mapping[str, Any], shards: Sequence[str | Path]):
        self.path, self.provenance = Path(path), dict(provenance)
        refuse_foreign_folder(self.path)
        self.folder = self.path.with_name(f".{self.path.name}.parts")
        names = dict.fromkeys(map(str, shards))  # a shard that is named twice is read once
        self._modified = cache(modified)  # all parts of a folder ask for the same
        self.parts = {shard: self.folder / f"{index:05d}" for index, shard in enumerate(names)}

    def discard_outdated(self) -> None:
        """Deletes what an earlier run left and this one cannot use: torn parts, other codes, parts of older shards."""
        self.folder.mkdir(parents=True, exist_ok=True)
        usable = {part for shard, part in self.parts.items() if self._is_current(shard, part)}
        for child in self.folder.iterdir():
            if child.is_file():
                child.unlink()
            elif child not in usable:
                shutil.rmtree(child)

    def is_published(self) -> bool:
        """Whether the store is there, whole, of these shards and codes, and not older than a shard."""
        published = {shard: self.path / part.name for shard, part in self.parts.items()}
        is_same = _says(self.path / PROVENANCE, self.provenance)
        return is_same and all(self._is_current(shard, part) for shard, part in published.items())

    def missing(self) -> list[str]:
        """The shards that have no part yet."""
        return [shard for shard, part in self.parts.items() if not part.exists()]

    def writer(self, shard: str) -> CodeWriter:
        return CodeWriter(self.parts[shard], self._provenance_of(shard), may_be_empty=True)

    def health(self, limit_bad_share: float) -> Health:
        """The samples, good and bad, behind the parts that are there."""
        health = Health(limit_bad_share)
        for shard, part in self.parts.items():
            if part.exists():
                num_images, num_bad = read_totals(part / COUNTS)
                health.seen += num_images + num_bad
                health.bad += Counter({shard: num_bad})  # which drops a zero
        return health

    def publish(self, limit_bad_share: float = 0.01) -> None:
        """Makes the folder of all parts the store; ValueError, and the parts stay, if too many samples were bad."""
        health = self.health(limit_bad_share)
        health.check()
        present = [part for part in self.parts.values() if part.exists()]
        if health.seen == health.bad.total():
            raise ValueError(f"no sample was written to {str(self.path)!r}: the source has no usable image")
        states = [json.loads((part / STATE).read_text()) for part in present]
        files = [
            {"filename": f"{part.name}/{file['filename']}"}
            for part, state in zip(present, states, strict=True)
            for file in state["_data_files"]
        ]
        state = states[0] | {"_data_files": files, "_fingerprint": None}
        (self.folder / STATE).write_text(json.dumps(state, indent=2))
        shutil.copyfile(present[0] / INFO, self.folder / INFO)
        (self.folder / PROVENANCE).write_text(json.dumps(self.provenance, indent=2))
        sizes = self.provenance["depth"], self.provenance["codebook_size"]
        statistics = CodeCounts.total((part / COUNTS for part in present), *sizes).statistics()
        (self.folder / STATISTICS).write_text(json.dumps(statistics))
        for conversations in (part / CONVERSATIONS for part in present):
            if conversations.is_file():
                with conversations.open("rb") as source, (self.folder / CONVERSATIONS).open("ab") as target:
                    shutil.copyfileobj(source, target)
        publish_store(self.folder, self.path)

    def _provenance_of(self, shard: str) -> dict[str, Any]:
        return self.provenance | {"source": shard}

    def _is_current(self, shard: str, part: Path) -> bool:
        """Whether its part is there, of these codes, and not older than the shard."""
        file = part / PROVENANCE
        is_same = _says(file, self._provenance_of(shard))
        return is_same and file.stat().st_mtime >= self._modified(split_part(shard)[0])


def _says(file: Path, provenance: Mapping[str, Any]) -> bool:
    """Whether the file is there, whole, and holds this."""
    try:
        return file.is_file() and json.loads(file.read_text()) == provenance
    except ValueError:
        return False
