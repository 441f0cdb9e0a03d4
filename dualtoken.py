"""The face of the project: the command `dualtoken` and the public names.

    from dualtoken import DualTokenizer, DualTokenModel, DualTokenProcessor, UnifiedModel, load_unified

Nothing heavy is imported until a command or a name needs it, so that `dualtoken --help` answers at once. After this
import transformers' Auto classes read exported models (mllm/auto.py). A user's mistake (ValueError, OSError) becomes
one sentence and exit code 2; DUALTOKEN_DEBUG=1 shows its traceback instead.
"""

from __future__ import annotations

import argparse
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NoReturn

from mllm.auto import register_with_transformers
from train import commands, commands_use
from train.commands import Command, launched_stage, stage
from train.launch import sentence

PUBLIC_NAMES = {
    "DualCodes": "tokenizer",
    "DualTokenModel": "mllm.hugging_face",
    "DualTokenProcessor": "mllm.processor",
    "DualTokenizer": "tokenizer",
    "UnifiedModel": "mllm.model",
    "load_unified": "mllm.pretrained",
}

register_with_transformers()

COMMANDS = {
    "train-tower": stage(
        "train.train_tower",
        "TrainTowerConfig",
        "Train a small SigLIP on pictures and captions, where no pretrained one is at hand.",
        reads="shards of captioned pictures",
        writes="OUT/export, a SigLIP folder like the hub's; checkpoints, log.jsonl",
        example="dualtoken train-tower configs/tiny/tower.yaml",
    ),
    "train-tokenizer": launched_stage(
        "train.train_tokenizer",
        "TrainTokenizerConfig",
        "Train the tokenizer: two codebooks, projections and decoder on a SigLIP tower.",
        reads="shards of pictures, a SigLIP folder or hub id",
        writes="OUT/export, the tokenizer; checkpoints, log.jsonl, sheets of reconstructions",
        example="dualtoken train-tokenizer configs/tiny/tokenizer.yaml loop.steps=500\n"
        "         many processes: dualtoken train-tokenizer configs/full/tokenizer_paper.yaml --nproc 8",
    ),
    "import-tokenizer": Command(
        "Turn a tokenizer checkpoint that the paper's authors released into a folder of ours.",
        commands.add_import,
        commands.run_import,
        reads="a checkpoint of songweii/DualToken, the YAML file of its sizes",
        writes="OUT, a tokenizer with the same codes and reconstructions",
        example="dualtoken import-tokenizer epoch_20.pt --config configs/full/tokenizer_released_384.yaml "
        "--out runs/released/384",
    ),
    "eval-tokenizer": launched_stage(
        "train.evaluate_tokenizer",
        "EvaluateTokenizerConfig",
        "Measure a tokenizer: rFID, PSNR, SSIM, LPIPS, codebook usage, zero-shot accuracy, retrieval.",
        reads="a tokenizer, the SigLIP folder it grew from, shards or a folder of pictures; the weights that FID needs",
        writes="OUT/result.json, per_image.jsonl, sheets of reconstructions; OUT/parts, from which it continues",
        example="dualtoken eval-tokenizer configs/tiny/tokenizer_eval.yaml\n"
        "         ImageNet on eight GPUs: dualtoken eval-tokenizer configs/full/tokenizer_eval.yaml --nproc 8",
    ),
    "ablate-tokenizer": stage(
        "train.ablate_tokenizer",
        "AblateTokenizerConfig",
        "Train and measure variants of the tokenizer over several seeds, at the same budget.",
        reads="a config of train-tokenizer and one of eval-tokenizer, and what they read",
        writes="OUT: a run for each variant and seed, result.json, table.md, samples/variants.png",
        example="dualtoken ablate-tokenizer configs/tiny/ablation.yaml",
    ),
    "reconstruct": Command(
        "Show pictures beside what is left of them after their codes.",
        commands_use.add_reconstruct,
        commands_use.run_reconstruct,
        reads="picture files, a tokenizer",
        writes="one side-by-side PNG per file",
        example="dualtoken reconstruct cat.jpg dog.png --out runs/reconstructions",
    ),
    "pretokenize": Command(
        "Turn pictures into codes once, before training reads them many times.",
        commands.add_pretokenize,
        commands.run_pretokenize,
        reads="tars, folders, parquet files or data sets of captioned pictures; a tokenizer",
        writes="OUT, a code store that names the tokenizer it belongs to; its statistics.json, verify.png",
        example="dualtoken pretokenize configs/tiny/pretokenize.yaml --nproc 2 --verify",
    ),
    "inspect-data": Command(
        "Show what a training config feeds the model: packed rows, what is learned, images decoded in place.",
        commands.add_inspect_data,
        commands.run_inspect_data,
        reads="the YAML file of a `train` stage and its data; nothing is trained",
        writes="the rows to the terminal; OUT/rows.html, self-contained, and OUT/rows.png",
        example="dualtoken inspect-data configs/tiny/pretrain.yaml --rows 6",
    ),
    "train": Command(
        "Train the unified model, a stage at a time (align, pretrain, instruct), under DeepSpeed.",
        commands.add_launched,
        commands.run_train,
        reads="code stores of `pretokenize`, conversations, the model of the stage before",
        writes="OUT/export, a folder that `generate`, `chat` and `evaluate` read; checkpoints, log.jsonl, samples",
        example="dualtoken train configs/tiny/pretrain.yaml --nproc 2\n"
        "         many machines: torchrun --nnodes 4 --nproc_per_node 8 -m train.train_mllm configs/full/pretrain.yaml",
    ),
    "generate": Command(
        "Draw pictures from one prompt or from a file of them.",
        commands_use.add_generate,
        commands_use.run_generate,
        reads="a unified model",
        writes="OUT/*.png, each with its prompt, seed, settings and model in its metadata, and OUT/sheet.png",
        example='dualtoken generate "a red apple, 3d style" --cfg 3 --num 8 --out runs/apples\n'
        "         many: dualtoken generate --prompts prompts.txt --nproc 8 --out runs/pictures",
    ),
    "chat": Command(
        "Talk with the model about pictures, and let it draw; or ask one question.",
        commands_use.add_chat,
        commands_use.run_chat,
        reads="a unified model, picture files",
        writes="its words on the terminal; pictures drawn in a dialogue to OUT/*.png",
        example='dualtoken chat\n         one question: dualtoken chat --image apple.png "What is this?"',
    ),
    "demo": Command(
        "Chat, draw and look at codes in the browser.",
        commands_use.add_demo,
        commands_use.run_demo,
        reads="a unified model",
        writes="nothing; a page at http://127.0.0.1:7860, for this machine alone",
        example="dualtoken demo",
    ),
    "serve": Command(
        "Answer and draw over HTTP, in the shapes of OpenAI's API.",
        commands_use.add_serve,
        commands_use.run_serve,
        reads="a unified model",
        writes="nothing; answers at http://127.0.0.1:8000/v1, for this machine alone",
        example="dualtoken serve",
    ),
    "eval-generation": stage(
        "train.evaluate_generation",
        "EvaluateGenerationConfig",
        "Measure drawn pictures: does the tower find their caption, and the style asked for?",
        reads="a unified model, a SigLIP folder, shards whose captions are the prompts",
        writes="OUT/result.json and a sheet of pictures for each guidance",
        example="dualtoken eval-generation configs/tiny/generation.yaml",
    ),
    "draw-benchmark": launched_stage(
        "train.draw_benchmark",
        "DrawBenchmarkConfig",
        "Draw the pictures of text-to-image benchmarks: GenEval, DPG-bench, MJHQ-30K, prompts of your own.",
        reads="a unified model, the benchmarks' own prompt files",
        writes="OUT: a folder for each as its evaluator reads it, result.json with the next command; continues there",
        example="dualtoken draw-benchmark configs/full/draw_benchmark.yaml --nproc 8\n"
        "         a smoke run: dualtoken draw-benchmark configs/full/draw_benchmark.yaml limit=8 out=runs/smoke",
    ),
    "evaluate": Command(
        "Run benchmarks: questions, answers, official submission files, scores.",
        commands.add_evaluate,
        commands.run_evaluate,
        reads="a unified model, benchmarks in their official formats",
        writes="OUT: submissions, scores.json with chance and ceiling, manifest.json, examples; continues there",
        example="dualtoken evaluate --benchmarks runs/demo/benchmarks --split unseen_style --out runs/scores\n"
        "         official files on eight GPUs: dualtoken evaluate configs/full/evaluate.yaml --nproc 8",
    ),
    "score": Command(
        "Score official submission files alone, without a model.",
        commands.add_score,
        commands.run_score,
        reads="the benchmark's own files and a submission",
        writes="a table on the terminal; every figure to --json OUT",
        example="dualtoken score vqav2 --questions Q.json --annotations A.json --results R.json --json scores.json",
    ),
    "export": Command(
        "Turn a run or a checkpoint into a folder to ship: other precision, shards, a model card.",
        commands.add_export,
        commands.run_export,
        reads="an exported model, a run folder of `train`, or one of its checkpoints",
        writes="OUT, which every command and transformers' Auto classes read; its README.md says what it is",
        example="dualtoken export runs/demo/instruct --out runs/emoji-model --dtype int8 --license MIT\n"
        "         a checkpoint: dualtoken export runs/demo/pretrain/checkpoints/step-000250 --out runs/early",
    ),
    "report": Command(
        "Write the page that shows a run: curves, pictures, answers, scores, times.",
        commands.add_report,
        commands.run_report,
        reads="a run folder, of one stage or of a pipeline",
        writes="RUN/report.html, self-contained, and RUN/metrics.json; with --compare one page of several runs",
        example="dualtoken report runs/demo\n         dualtoken report --compare runs/demo runs/demo-long",
    ),
    "info": Command(
        "Show what a config resolves to and how large its model is, or what an exported folder holds.",
        commands.add_info,
        commands.run_info,
        reads="a YAML file or an exported folder",
        writes="the terminal alone",
        example="dualtoken info configs/tiny/tower.yaml vision.num_hidden_layers=12",
    ),
    "run": Command(
        "Run a pipeline: several of these commands one after the other, resumable.",
        commands.add_config,
        commands.run_pipeline,
        reads="a YAML file that lists stages and their commands",
        writes="what the stages write, and OUT/stages.json with their times",
        example="dualtoken run configs/tiny/demo.yaml",
    ),
}


def __getattr__(name: str) -> Any:
    if name in PUBLIC_NAMES:
        return getattr(import_module(PUBLIC_NAMES[name]), name)
    raise AttributeError(f"module 'dualtoken' has no attribute {name!r}")


class Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def build_parser(chosen: str | None) -> Parser:
    """The parser; only the `chosen` command gets its arguments, for some need imports of their own."""
    overview = "\n".join(f"  {name:<16} {command.purpose}" for name, command in COMMANDS.items())
    parser = Parser(
        prog="dualtoken",
        usage="dualtoken COMMAND [arguments]",
        description="One model that sees, answers and draws, with two visual vocabularies (arXiv 2503.14324).",
        epilog=f"commands, in the order of a model's life:\n{overview}\n\ndualtoken COMMAND --help explains one; "
        "dualtoken run configs/tiny/demo.yaml is the whole chain on a laptop.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"dualtoken {_version()}")
    subparsers = parser.add_subparsers(
        dest="command", prog="dualtoken", required=True, metavar="COMMAND", help=argparse.SUPPRESS
    )
    for name, command in COMMANDS.items():
        sub = subparsers.add_parser(
            name,
            description=command.purpose,
            epilog=f"reads    {command.reads}\nwrites   {command.writes}\nexample  {command.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == chosen:
            command.arguments(sub)
    return parser


def parse(arguments: Sequence[str]) -> Namespace:
    parser = build_parser(next((argument for argument in arguments if not argument.startswith("-")), None))
    args, rest = parser.parse_known_args(arguments)
    if hasattr(args, "overrides") and all("=" in extra and not extra.startswith("-") for extra in rest):
        args.overrides += rest  # argparse loses track of key=value words that follow an option
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line; the exit code is 0, 2 after a user's mistake, 130 after Ctrl-C."""
    try:
        args = parse(sys.argv[1:] if arguments is None else arguments)
        COMMANDS[args.command].run(args)
    except (ValueError, OSError) as error:
        if os.environ.get("DUALTOKEN_DEBUG") == "1":
            raise
        print(f"dualtoken: error: {sentence(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _version() -> str:
    try:
        return version("dualtoken")
    except PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
