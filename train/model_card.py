"""README.md of an exported model: what it is, how it was made and from what, how good it is, how to use it.

Every figure comes from a file that a stage wrote. The header is the hub's; it has a licence only where whoever exports
the model names one, for that depends on data and models which this project does not know.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

import yaml

from mllm.pretrained import Unified
from mllm.weights import WeightFiles
from train.card_facts import Figure, TrainedStage

TEMPLATE = Path(__file__).with_name("model_card.md")
NO_HISTORY = "Not known: it was exported without its run folder."
NO_SCORES = "None yet. `dualtoken export RUN --out DIR` writes down what `dualtoken evaluate` has found since."
NO_LICENCE = "Not stated. It can be no wider than those of the data above and of the models that it grew from."


@dataclass(frozen=True)
class CardFacts:
    name: str
    history: Sequence[TrainedStage] = field(default_factory=list)  # the first stage first
    figures: Sequence[Figure] = field(default_factory=list)
    license: str | None = None


def write_card(unified: Unified, folder: Path, facts: CardFacts) -> None:
    """Writes README.md into the export in `folder`, whose other files are there already."""
    text = Template(TEMPLATE.read_text()).substitute(
        header=_header(unified, facts),
        name=facts.name,
        size=unified.tokenizer.image_size,
        parts="\n".join(f"| {name} | {text} |" for name, text in _parts(unified, folder)),
        history="\n\n".join(stage.describe() for stage in facts.history) or NO_HISTORY,
        scores=_table(facts.figures) if facts.figures else NO_SCORES,
        license=facts.license or NO_LICENCE,
    )
    (folder / "README.md").write_text(text)


def _header(unified: Unified, facts: CardFacts) -> str:
    base = unified.model.config.llm.path
    keys = {
        **({"license": facts.license.lower()} if facts.license else {}),
        "library_name": "dualtoken",
        "pipeline_tag": "any-to-any",
        "tags": ["dualtoken", "text-to-image", "image-text-to-text", "arxiv:2503.14324"],
        **({"base_model": base} if base else {}),
    }
    return yaml.safe_dump(keys, sort_keys=False)


def _parts(unified: Unified, folder: Path) -> Iterator[tuple[str, str]]:
    model, tokenizer = unified.model, unified.tokenizer
    llm, visual = model.llm.config, model.visual
    weights = WeightFiles(folder)
    sizes: Counter[str] = Counter()
    for name in weights:
        sizes[name.split(".")[0]] += weights.shape(name).numel()
    described = (
        f"{llm.model_type}, {sizes['llm']:,} parameters, {llm.num_hidden_layers} layers of width {llm.hidden_size}, "
        f"context {llm.max_position_embeddings:,}, vocabulary {model.vocab_size:,}"
    )
    yield "language model", described
    heads = sizes["pixel_head"] + sizes["semantic_head"]
    yield "depth heads, visual embedding", f"{heads:,} and {sizes['visual_embedding']:,} parameters"
    described = (
        f"`{visual.tokenizer_id}`: {visual.grid[0]} × {visual.grid[1]} positions, {visual.depth} pixel and "
        f"{visual.depth} semantic codes each, of {visual.codebook_size:,}; "
        f"{sum(p.numel() for p in tokenizer.parameters()):,} parameters, tower `{tokenizer.config.tower}`"
    )
    yield "tokenizer", described
    size = sum(file.stat().st_size for file in folder.rglob("*.safetensors")) / 1e6
    yield "weights", f"{size:,.1f} MB, stored as {weights.stored_as}; what decides codes as F32"


def _table(figures: Sequence[Figure]) -> str:
    lines = [f"| {figure.what} | {figure.value} | {figure.beside} |" for figure in figures]
    return "\n".join(["| | this model | to compare with |", "|---|---|---|", *lines])
