"""`dualtoken info` for a training config: how large the model is, what a step holds and costs, and what fits a GPU."""

from collections.abc import Iterator
from dataclasses import replace

from mllm.model import UnifiedModel
from train.engine_config import EngineConfig
from train.flops import model_flops
from train.memory import activations, logits, states
from train.parameters import PARTS, part_of
from train.planned_model import planned_model
from train.planned_rows import ASSUMED_TOKENS, Rows, fullest, planned_rows
from train.train_mllm import TrainMllmConfig

PETA, GIBI = 1e15, 2**30
REACHED = 100e12  # FLOP/s that times are said for


def plan(config: TrainMllmConfig, num_gpus: int) -> str:
    """The text under the resolved config. Raises FileNotFoundError where not even the LLM's sizes can be found."""
    model, assumed = planned_model(config)
    rows = planned_rows(config, model.visual.num_patches)
    if not rows.sizes:
        tokens = ", ".join(f"{kind} {count}" for kind, (count, _) in ASSUMED_TOKENS.items())
        assumed.append(f"the data: full rows of documents by weight, of so many tokens beside an image: {tokens}")
    lines = [*parameters(model), *images(model, config, rows), *step(model, config, rows, num_gpus)]
    lines += [*epochs(config, rows, num_gpus), *memory(model, config, num_gpus)]
    lines += [f"not at hand, so assumed of {text}" for text in assumed]
    return "".join(f"# {line}\n" for line in lines)


def parameters(model: UnifiedModel) -> Iterator[str]:
    yield "parameters"
    for part in PARTS:
        own = [p for name, p in model.named_parameters() if part_of(name) == part]
        whole, learned = sum(p.numel() for p in own), sum(p.numel() for p in own if p.requires_grad)
        if whole:
            yield f"  {part:<24}{whole:>16,}  {_learned(whole, learned)}"
    yield f"  {'total':<24}{sum(p.numel() for p in model.parameters()):>16,}"


def _learned(whole: int, learned: int) -> str:
    if learned in (0, whole):
        return "learns" if learned else "frozen"
    return f"{learned:,} of them learn"


def images(model: UnifiedModel, config: TrainMllmConfig, rows: Rows) -> Iterator[str]:
    visual, patches = model.visual, model.visual.num_patches
    stored = 2 * visual.depth * patches * 2  # uint16
    yield f"an image: {patches} positions, {patches + 2} with its delimiters; {stored:,} bytes of codes"
    yield (
        f"a row of {config.data.context_length} positions: {rows.images:.1f} images, {rows.documents:.1f} documents, "
        f"{rows.work.text_targets:.0f} tokens and {rows.work.visual_targets:.0f} visual positions learned"
    )


def step(model: UnifiedModel, config: TrainMllmConfig, rows: Rows, num_gpus: int) -> Iterator[str]:
    num_rows = rows_per_step(config, num_gpus)
    flops = num_rows * model_flops(model, rows.work)
    seconds = flops / num_gpus / REACHED
    yield (
        f"a step: {num_gpus} GPUs × {config.engine.accumulation} micro-batches × {config.data.rows_per_batch} rows = "
        f"{num_rows * config.data.context_length:,} positions, {num_rows * rows.images:,.0f} images"
    )
    yield (
        f"  {flops / PETA:.3g} PFLOP (recomputation not counted): {seconds:.3g} s where a GPU reaches 100 TFLOP/s, "
        f"{seconds * config.loop.steps / 3600:.3g} h for {config.loop.steps:,} steps"
    )


def rows_per_step(config: TrainMllmConfig, num_gpus: int) -> int:
    return num_gpus * config.engine.accumulation * config.data.rows_per_batch


def epochs(config: TrainMllmConfig, rows: Rows, num_gpus: int) -> Iterator[str]:
    """How long each source lasts, where it was counted."""
    documents = rows.documents * rows_per_step(config, num_gpus)
    total = sum(source.weight for source in config.data.sources)
    for source, size in zip(config.data.sources, rows.sizes, strict=False):
        steps = size / (documents * source.weight / total) if source.weight else float("inf")
        seen = f"an epoch is {steps:,.0f} steps, seen {config.loop.steps / steps:.2f} times"
        yield f"  {source.name or source.kind}: {size:,} documents, {seen}"


def memory(model: UnifiedModel, config: TrainMllmConfig, num_gpus: int) -> Iterator[str]:
    """Every ZeRO stage, with the activations of a few batch sizes."""
    context, patches, own = config.data.context_length, model.visual.num_patches, config.data.rows_per_batch
    precision = config.engine.precision
    columns = [(n, checkpointing) for checkpointing in (True, False) for n in (own, 2 * own)]
    held = [
        activations(model, work := fullest(context, patches, n), precision, c) + logits(model, work, precision)
        for n, c in columns
    ]
    yield f"memory of one GPU of {num_gpus}, GiB, estimated (train/memory.py), {precision}"
    yield f"  {'':<38}| LLM recomputed    | LLM kept"
    names = "".join(f"{f'{n} rows':>10}" for n, _ in columns)
    yield f"  {'ZeRO':<6}{'offloaded':<22}{'states':>9} {names}"
    for engine, offloaded in variants(config.engine):
        fixed = states(model, engine, num_gpus, averaged=config.ema.decay > 0).total
        totals = "".join(f"{(fixed + extra) / GIBI:>10.1f}" for extra in held)
        yield f"  {engine.zero_stage:<6}{offloaded:<22}{fixed / GIBI:>9.1f} {totals}"


def variants(engine: EngineConfig) -> Iterator[tuple[EngineConfig, str]]:
    kept = replace(engine, offload_optimizer=False, offload_parameters=False)
    for stage in range(4):
        yield replace(kept, zero_stage=stage), "nothing"
        if stage > 0:
            yield replace(kept, zero_stage=stage, offload_optimizer=True), "optimizer"
    yield replace(kept, zero_stage=3, offload_optimizer=True, offload_parameters=True), "optimizer, weights"
