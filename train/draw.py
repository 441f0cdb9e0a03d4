"""`dualtoken generate`: pictures from prompts, in any number of processes.

    torchrun --nproc_per_node 8 -m train.draw OUT/config.yaml

Each process draws a share. What a picture becomes depends on its prompt and seed alone, not on the share.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eval.draw import Origin, Wanted, draw_pictures, pictures_of, read_prompts, write_sheet
from eval.load import load
from eval.manifest import hash_model
from heads.sampling import SamplingConfig
from train.distributed import join_world
from train.launch import run_launched


@dataclass(frozen=True)
class DrawConfig:
    prompts: str | None = None  # .txt with one a line, or .jsonl with `prompt` and perhaps `seed`
    out: str = "runs/pictures"
    model: str = "assets/emoji-model"
    num: int = 1  # pictures of each prompt
    seed: int = 0
    batch_size: int = 16
    sampling: SamplingConfig = field(default_factory=SamplingConfig)


def main(config: DrawConfig) -> None:
    if config.prompts is None:
        raise ValueError("prompts: give a .txt file with one a line, or a .jsonl file")
    draw_all(config, pictures_of(read_prompts(config.prompts, config.seed), config.out, config.num))


def draw_all(config: DrawConfig, wanted: Sequence[Wanted]) -> None:
    """Draws this process's share; the first process then writes OUT/sheet.png and says what there is."""
    world = join_world()
    unified = load(config.model)
    origin = Origin(config.model, world.gather(hash_model(config.model)[:16] if world.is_main else "")[0])
    Path(config.out).mkdir(parents=True, exist_ok=True)
    share = wanted[world.rank :: world.size]
    draw_pictures(unified, share, config.sampling, origin, config.batch_size, quiet=not world.is_main)
    world.barrier()
    sheet = Path(config.out, "sheet.png")
    world.on_main(write_sheet, wanted, sheet)
    if world.is_main:
        print("\n".join(map(str, [*(each.path for each in wanted), sheet])))


if __name__ == "__main__":
    run_launched(DrawConfig, main)
