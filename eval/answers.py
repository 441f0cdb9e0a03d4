"""Answers are kept as they are made: a stopped evaluation goes on at the sample, with any number of processes.

    ANSWERS/{fingerprint}/made_from.json          what decides the answers: model, settings, hashes of question files
    ANSWERS/{fingerprint}/rank-00000.jsonl        {"place": 17, "question": "…", "answer": "…"}, a line each

`place` counts the questions of the official files, whose hashes are in the fingerprint. Answers of another model, of
other settings or of other files lie under another fingerprint and are never used.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from eval.files import write_json
from eval.manifest import fingerprint


class Answers:
    def __init__(self, folder: Path, made_from: Mapping[str, Any], rank: int = 0):
        self.parent, self.made_from, self.rank = folder, json.loads(json.dumps(dict(made_from))), rank
        self.folder = folder / fingerprint(made_from)
        self._file: IO[bytes] | None = None

    def read(self) -> dict[int, str]:
        """The answers of all processes by place; a last line that a kill has torn is none."""
        answers: dict[int, str] = {}
        for path in sorted(self.folder.glob("rank-*.jsonl")):
            for line in path.read_bytes().split(b"\n"):
                try:
                    row = json.loads(line)
                    answers[row["place"]] = row["answer"]
                except (ValueError, KeyError, TypeError):
                    continue
        return answers

    def start(self) -> None:
        """Called by one process before any answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "made_from.json", self.made_from)

    def append(self, place: int, question: str, answer: str) -> None:
        """After this the answer survives a kill of the process."""
        row = {"place": place, "question": question, "answer": answer}
        file = self._open()
        file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
        file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def others(self) -> list[str]:
        """One sentence for each set of answers that is there and is not used, with what differs."""
        sentences = []
        for path in sorted(self.parent.glob("*/made_from.json")):
            if path.parent != self.folder:
                other = json.loads(path.read_text(encoding="utf-8"))
                names = sorted(key for key in {*other, *self.made_from} if other.get(key) != self.made_from.get(key))
                sentences.append(f"the answers in {path.parent} differ in {', '.join(names)} and are not used")
        return sentences

    def _open(self) -> IO[bytes]:
        if self._file is None:
            self._file = (self.folder / f"rank-{self.rank:05d}.jsonl").open("ab+")
            end = self._file.seek(0, 2)
            if end:
                self._file.seek(end - 1)
                if self._file.read(1) != b"\n":  # what follows a torn line must not become a part of it
                    self._file.write(b"\n")
        return self._file
