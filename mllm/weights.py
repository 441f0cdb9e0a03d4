"""Weights on the disk, in safetensors: written and read one at a time, so that a model is never held twice.

    model.safetensors                                                                       one file, or
    model-00001-of-00002.safetensors, …, model.safetensors.index.json       shards, named as transformers names them

`int8` keeps every matrix as 8-bit integers with a scale for each row, `NAME:scale`: half the size of bfloat16, for
models that are downloaded or shipped. It is a format of the disk alone; what is read is floating point again.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SCALE = ":scale"  # no parameter of a module can have a colon in its name
DTYPES = {
    **{"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.int8},
    **{"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16},
}
MAX_SHARD_SIZE = "5GB"


def parse_dtype(name: str) -> torch.dtype:
    if name not in DTYPES:
        raise ValueError(f"dtype {name!r} is unknown: choose {', '.join(DTYPES)}.")
    return DTYPES[name]


def parse_size(text: str) -> int:
    """Bytes: 5GB → 5,000,000,000, as transformers counts them."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B", text.strip(), re.IGNORECASE)
    size = int(float(match[1]) * 1000 ** " KMGT".index(match[2].upper() or " ")) if match else 0
    if size < 1:
        raise ValueError(f"shard size {text!r} is no size: give a number and a unit, such as 5GB or 200MB.")
    return size


def write_weights(
    weights: Iterable[tuple[str, Tensor]], folder: Path, dtype: torch.dtype | None, max_shard_size: str
) -> torch.dtype:
    """Floating-point weights become `dtype` (None: as they are). One shard is in memory at a time.

    Weights that `folder` held are replaced, and may be what is written: theirs go when all of the new are on the disk.
    Returns the dtype that the first of them has when it is read.
    """
    limit = parse_size(max_shard_size)
    read_as = None if dtype == torch.int8 else dtype
    shards: list[list[str]] = []
    part: dict[str, Tensor] = {}
    part_size = total_size = 0

    def close() -> None:
        shards.append(list(part))
        save_file(part, folder / f"part-{len(shards):05d}", metadata={"format": "pt"})
        part.clear()

    for name, weight in weights:
        read_as = read_as or (torch.float32 if dtype == torch.int8 else weight.dtype)
        stored = _store(name, weight, dtype)
        size = sum(tensor.nbytes for tensor in stored.values())
        if part and part_size + size > limit:
            close()
            part_size = 0
        part |= stored
        part_size, total_size = part_size + size, total_size + size
    close()
    files = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    files = files if len(files) > 1 else [SINGLE]
    for old in (INDEX, SINGLE, "model-?????-of-?????.safetensors"):
        for path in folder.glob(old):
            path.unlink()
    for i, file in enumerate(files, start=1):
        (folder / f"part-{i:05d}").rename(folder / file)
    if len(files) > 1:
        places = {name: file for file, names in zip(files, shards, strict=True) for name in names}
        index = {"metadata": {"total_size": total_size}, "weight_map": places}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")
    return read_as or torch.float32


def _store(name: str, weight: Tensor, dtype: torch.dtype | None) -> dict[str, Tensor]:
    weight = weight.detach().cpu()
    if dtype is None or not weight.is_floating_point():
        return {name: weight.contiguous()}
    if dtype != torch.int8:
        return {name: weight.to(dtype).contiguous()}
    if weight.ndim < 2:
        return {name: weight.float().contiguous()}
    scale = weight.float().abs().amax(dim=-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / 127
    return {name: (weight.float() / scale).round().to(torch.int8), name + SCALE: scale}


class WeightFiles(Mapping[str, Tensor]):
    """The weights in a folder of `write_weights`, each read from the disk when it is asked for.

    Raises FileNotFoundError for a missing file and ValueError for a damaged one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[str, Any] = {}
        if (folder / INDEX).is_file():
            self._places = _read_index(folder / INDEX)
        else:
            self._places = dict.fromkeys(self._file(SINGLE).keys(), SINGLE)

    def __getitem__(self, name: str) -> Tensor:
        file = self._file(self._places[name])
        weight = file.get_tensor(name)
        return weight.float() * file.get_tensor(name + SCALE) if name + SCALE in self._places else weight

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._places if not name.endswith(SCALE))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @property
    def stored_as(self) -> str:
        """The kinds of numbers on the disk in safetensors' names, that of most weights first: "BF16"."""
        sizes: Counter[str] = Counter()
        for name in self:
            sizes[self._file(self._places[name]).get_slice(name).get_dtype()] += self.shape(name).numel()
        return ", ".join(kind for kind, _ in sizes.most_common())

    def shape(self, name: str) -> torch.Size:
        """Without reading the weight."""
        return torch.Size(self._file(self._places[name]).get_slice(name).get_shape())

    def _file(self, name: str) -> Any:
        path = self.folder / name
        if name not in self._open:
            if not path.is_file():
                raise FileNotFoundError(f"{self.folder} is no exported model: {name} is missing; export it again.")
            try:
                self._open[name] = safe_open(path, framework="pt")
            except SafetensorError as error:
                raise ValueError(
                    f"{path} does not hold the weights that its config.json describes: {error}; export the model again."
                ) from error
        return self._open[name]


def _read_index(path: Path) -> dict[str, str]:
    try:
        places = json.loads(path.read_text())["weight_map"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no index of weights ({error!r}): export the model again.") from error
    foreign = [file for file in places.values() if Path(file).name != file]
    if foreign:
        raise ValueError(f"{path} names {foreign[0]!r}, which is outside its folder: export the model again.")
    return places
