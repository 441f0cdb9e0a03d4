"""`dualtoken score NAME …`: score official submission files, without a model and without torch.

A scorer is a module with `HELP`, `PROTOCOL` (which variant of the rules it follows), `add_arguments(parser)`,
`run(args) -> result` and `table(result) -> [(name, figure)]`; adding one is that module and its name in SCORERS.
"""

import argparse
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from eval import (
    clipscore,
    dpg,
    fid_score,
    geneval,
    mjhq,
    mmbench,
    mme,
    mmvet,
    pope,
    reconstruction_pairs,
    retrieval,
    seed,
    vqav2,
    zero_shot,
)
from eval.files import write_json

SCORERS: dict[str, ModuleType] = {
    "vqav2": vqav2,
    "mme": mme,
    "pope": pope,
    "mmbench": mmbench,
    "seed": seed,
    "mmvet": mmvet,
    "zeroshot": zero_shot,
    "retrieval": retrieval,
    "fid": fid_score,
    "reconstruction": reconstruction_pairs,
    "geneval": geneval,
    "dpg": dpg,
    "mjhq": mjhq,
    "clipscore": clipscore,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds a sub-command per scorer to the parser of `dualtoken score`."""
    names = parser.add_subparsers(dest="benchmark", required=True, metavar="NAME")
    for name, scorer in SCORERS.items():
        description = f"{scorer.__doc__}".strip()
        sub = names.add_parser(
            name, help=scorer.HELP, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        scorer.add_arguments(sub)
        sub.add_argument("--json", metavar="OUT", help="write every figure to this file")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Scores, prints a table, writes the JSON. Raises ValueError or OSError where the files are wrong."""
    scorer = SCORERS[args.benchmark]
    result = {"benchmark": args.benchmark, "protocol": scorer.PROTOCOL, **scorer.run(args)}
    print(format_table(scorer.table(result)))
    for name, value in result["warnings"].items():
        print(f"warning: {name.replace('_', ' ')}: {', '.join(value) if isinstance(value, list) else value}")
    if args.json:
        write_json(args.json, result)
    return result


def format_table(lines: Sequence[tuple[str, str]]) -> str:
    """Names on the left, figures aligned on the right."""
    left, right = (max(len(line[side]) for line in lines) for side in (0, 1))
    return "\n".join(f"{name:<{left}}  {figure:>{right}}" for name, figure in lines)
