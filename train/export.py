"""`dualtoken export`: a finished export or a training checkpoint → a folder to use, ship or upload, with its card.

Weights pass through memory one at a time, from the files of all ranks to the shards of the export. A stage's own
`export/`, written at its end, is made by the same writer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from mllm.lora import Renamed, add_adapters, take_off_adapters, with_adapter
from mllm.pretrained import Unified, load_unified, read_config, save_unified
from mllm.weights import MAX_SHARD_SIZE, WeightFiles, parse_dtype, parse_size
from train.card_facts import read_figures, read_history
from train.checkpoint import checkpoint_step, latest_checkpoint
from train.model_card import CardFacts, write_card
from train.replaced_folder import replaced


class Source(NamedTuple):
    unified: Unified  # its model on the meta device
    weights: Mapping[str, Tensor]
    run: Path | None  # the run folder of the stage that trained it, where there is one
    step: int | None  # of a checkpoint
    exported: Path | None  # where the weights lie, unless in a checkpoint


def export(
    source: str,
    out: str,
    dtype: str | None = None,
    max_shard_size: str = MAX_SHARD_SIZE,
    scores: Sequence[str] = (),
    license: str | None = None,
) -> Path:
    """Writes `out`, beside and renamed: an export that was there is replaced, any other folder refused."""
    stored = None if dtype is None else parse_dtype(dtype)
    parse_size(max_shard_size)
    folder = Path(out)
    _refuse_foreign(folder)
    unified, weights, run, step, exported = open_source(Path(source))
    figures = read_figures(run, exported, unified.tokenizer.tokenizer_id, [Path(path) for path in scores])
    with replaced(folder) as partial:
        save_unified(unified.model, partial, unified.vocabulary, unified.tokenizer, weights, stored, max_shard_size)
        write_card(unified, partial, CardFacts(folder.name, read_history(run, step), figures, license))
    return folder


def open_source(path: Path) -> Source:
    """An exported folder, a run folder of `dualtoken train` (its export/, else its newest checkpoint), a checkpoint."""
    path = path.resolve()  # so that it has parents, whatever the working folder
    if (path / "config.json").is_file():
        run = path.parent if path.name == "export" and (path.parent / "config.yaml").is_file() else None
        return Source(load_unified(path, device="meta"), with_adapter(WeightFiles(path), path), run, None, path)
    if (path / "config.yaml").is_file():
        if (path / "export").is_dir():
            return open_source(path / "export")
        newest = latest_checkpoint(path / "checkpoints")
        if newest is None:
            raise FileNotFoundError(f"run {path} has neither an export/ nor a checkpoint yet")
        return open_checkpoint(newest, path)
    if (path / "state.pt").is_file() and (path.parents[1] / "config.yaml").is_file():
        return open_checkpoint(path, path.parents[1])
    raise FileNotFoundError(
        f"{path} is neither an exported model, nor a run folder of `dualtoken train`, nor one of its checkpoints"
    )


def open_checkpoint(checkpoint: Path, run: Path) -> Source:
    # Here, for DeepSpeed takes seconds to import and a finished export needs none of it.
    from train.build_mllm import frozen_weights, outline
    from train.checkpoint_weights import CheckpointWeights
    from train.config import load_config
    from train.train_mllm import TrainMllmConfig

    config = load_config(TrainMllmConfig, run / "config.yaml")
    unified = outline(config.init, config.model, config.tokenizer, config.vocabulary or str(run / "vocabulary"))
    kind = "average" if config.ema.decay and config.ema.export else "fp32"
    if config.has_adapters:
        add_adapters(unified.model.llm, config.lora, config.loop.seed)
    trained = {name.replace(".base_layer.", "."): name for name, _ in unified.model.named_parameters()}

    def frozen() -> Mapping[str, Tensor]:
        weights = frozen_weights(config.init, config.model, unified.vocabulary, config.engine.dtype)
        return Renamed(weights, {trained[name]: name for name in weights if name in trained})

    weights: Mapping[str, Tensor] = CheckpointWeights(checkpoint, trained.values(), kind, frozen)
    if config.has_adapters:  # merged: apart, they are written by the stage itself
        weights = take_off_adapters(weights, replace(config.lora, merge=True), run)
    return Source(unified, weights, run, checkpoint_step(checkpoint), None)


def _refuse_foreign(folder: Path) -> None:
    """A folder that is there and holds something else than an exported model is not to be replaced."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        read_config(folder)
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(
            f"--out {folder} exists and is no exported model: choose another folder, or remove it"
        ) from error
