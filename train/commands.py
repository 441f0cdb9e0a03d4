"""The commands of `dualtoken`: the arguments of each, and the function behind it.

Nothing heavy is imported before a command runs. Those that use a model take the shipped one where none is named;
`evaluate` and `eval-generation` take what `make demo` trains.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

DEMO_MODEL = "runs/demo/instruct/export"
SHIPPED_MODEL = "assets/emoji-model"


@dataclass(frozen=True)
class Command:
    """A command: what its help says, `arguments` that fill its parser, `run` that executes it."""

    purpose: str
    arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], None]
    reads: str
    writes: str
    example: str


def stage(module: str, config: str, purpose: str, **texts: str) -> Command:
    """A stage that a YAML file describes: `module.main` takes the dataclass `module.config`."""

    def run(args: Namespace) -> None:
        from train.config import load_config

        owner = import_module(module)
        owner.main(load_config(getattr(owner, config), args.config, args.overrides))

    return Command(purpose, add_config, run, **texts)


def launched_stage(module: str, config: str, purpose: str, **texts: str) -> Command:
    """A stage that may run in several processes: `--nproc N`, or torchrun with `-m module` for many machines."""

    def run(args: Namespace) -> None:
        from train.config import load_config
        from train.launch import launch

        owner = import_module(module)
        resolved = load_config(getattr(owner, config), args.config, args.overrides)  # a mistake is known at once
        if args.nproc == 1:
            owner.main(resolved)
        else:
            launch(module, [args.config, *args.overrides], args.nproc)

    return Command(purpose, add_launched, run, **texts)


def add_config(parser: ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="a YAML file; the shipped ones are under configs/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="replaces one of its values: loop.steps=100")


def add_launched(parser: ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--nproc", type=int, default=1, metavar="N", help="processes on this machine, one per GPU (1)")


def add_pretokenize(parser: ArgumentParser) -> None:
    add_launched(parser)
    parser.add_argument("--verify", action="store_true", help="decode 16 pictures into OUT/verify.png, as verify=16")


def run_pretokenize(args: Namespace) -> None:
    args.overrides += ["verify=16"] if args.verify else []
    launched_stage("train.pretokenize", "PretokenizeConfig", "", reads="", writes="", example="").run(args)


def run_train(args: Namespace) -> None:
    from train.launch import launch

    if not Path(args.config).is_file():  # known before the processes start, which takes long
        raise FileNotFoundError(f"config {args.config} does not exist; the shipped ones are under configs/")
    launch("train.train_mllm", [args.config, *args.overrides], args.nproc)


def add_inspect_data(parser: ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--rows", type=int, default=4, metavar="N", help="how many packed rows (%(default)s)")
    parser.add_argument("--out", default="runs/inspect-data", metavar="DIR", help="where to write (%(default)s)")


def run_inspect_data(args: Namespace) -> None:
    from train.config import load_config
    from train.inspect_data import inspect_data
    from train.train_mllm import TrainMllmConfig

    paths = inspect_data(load_config(TrainMllmConfig, args.config, args.overrides), args.rows, args.out)
    print("\n".join(map(str, paths)))


def add_import(parser: ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="the authors' epoch_N.pt")
    parser.add_argument("--config", required=True, metavar="YAML", help="configs/full/tokenizer_released_*.yaml")
    parser.add_argument("--out", required=True, metavar="DIR", help="where to write the tokenizer's folder")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="replaces a value of the YAML file")


def run_import(args: Namespace) -> None:
    from tokenizer.released import import_released
    from train.config import load_config
    from train.train_tokenizer import TrainTokenizerConfig

    config = load_config(TrainTokenizerConfig, args.config, args.overrides).tokenizer
    tokenizer = import_released(args.checkpoint, config)
    tokenizer.save_pretrained(args.out)
    print(f"tokenizer {tokenizer.tokenizer_id} written to {args.out}, without the checkpoint's text tower")


EVALUATE_OPTIONS = ("model", "benchmarks", "split", "tasks", "out", "batch_size", "max_new_tokens", "limit", "blind")


def add_evaluate(parser: ArgumentParser) -> None:
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="a YAML file; every option replaces a value of it")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="replaces one of its values")
    parser.add_argument("--model", metavar="DIR", help=f"folder of a unified model ({DEMO_MODEL})")
    parser.add_argument("--benchmarks", metavar="DIR", help="official folders, one per split")
    parser.add_argument("--split", help="the split, a folder of DIR, such as unseen_style")
    parser.add_argument("--tasks", metavar="NAMES", help="vqav2,mme,pope,mmbench,seed,mmvet (all that are there)")
    parser.add_argument("--out", metavar="DIR", help="where to write answers, submissions and scores")
    parser.add_argument("--batch-size", type=int, metavar="N", help="questions at a time (32)")
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="length of an answer (the protocol's)")
    parser.add_argument("--limit", type=int, metavar="N", help="about so many questions of each benchmark (all)")
    parser.add_argument(
        "--blind", action="store_true", default=None, help="ask again with a grey image: what guessing reaches"
    )
    parser.add_argument("--nproc", type=int, default=1, metavar="N", help="processes on this machine, one per GPU (1)")


def run_evaluate(args: Namespace) -> None:
    from train.config import build_config, load_config, save_config
    from train.evaluate import EvaluateConfig, main, open_all
    from train.launch import launch

    overrides = list(args.overrides)
    if args.config is not None and "=" in args.config and not Path(args.config).is_file():
        overrides.insert(0, args.config)  # without a CONFIG the first key=value stands in its place
        args.config = None
    given = {name: getattr(args, name) for name in EVALUATE_OPTIONS if getattr(args, name) is not None}
    if "tasks" in given:
        given["tasks"] = [name.strip() for name in given["tasks"].split(",") if name.strip()]
    if args.config is None and "out" not in given:
        raise ValueError("give a CONFIG, or --benchmarks DIR --split NAME --out DIR")
    layers = [asdict(load_config(EvaluateConfig, args.config))] if args.config is not None else []
    config = build_config(EvaluateConfig, [*layers, given], args.config or "evaluate", overrides)
    open_all(config)
    if args.nproc == 1:
        main(config)
    else:
        Path(config.out).mkdir(parents=True, exist_ok=True)
        save_config(config, Path(config.out, "config.yaml"))
        launch("train.evaluate", [f"{config.out}/config.yaml"], args.nproc)


def add_score(parser: ArgumentParser) -> None:
    from eval.score import add_arguments

    add_arguments(parser)


def run_score(args: Namespace) -> None:
    from eval.score import run

    run(args)


def add_report(parser: ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", nargs="?", help="a run folder, of one stage or of a pipeline")
    parser.add_argument("--compare", nargs="+", metavar="RUN", help="several run folders side by side, on one page")
    parser.add_argument("--out", default="runs/compare.html", help="the page of --compare (%(default)s)")


def run_report(args: Namespace) -> None:
    from train.compare import write_comparison
    from train.report import write_report

    if (args.run is None) == (args.compare is None):
        raise ValueError("give either one RUN, or --compare RUN RUN … for a page of several")
    print(f"written to {write_comparison(args.compare, args.out) if args.compare else write_report(args.run)}")


def add_export(parser: ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="an exported model, a run folder of `train`, or a checkpoint")
    parser.add_argument("--out", required=True, metavar="DIR", help="where to write; an export there is replaced")
    parser.add_argument(
        "--dtype",
        metavar="NAME",
        help="store weights as bf16, fp16, fp32, or int8 with a scale for each row (as they are). What decides codes "
        "stays as it is",
    )
    parser.add_argument("--max-shard-size", default="5GB", metavar="SIZE", help="of one file of weights (%(default)s)")
    parser.add_argument(
        "--scores",
        nargs="+",
        default=[],
        metavar="DIR",
        help="what the model card reports: OUT of `evaluate` or folders of pipelines (the run's own pipeline)",
    )
    parser.add_argument("--license", metavar="NAME", help="what the model card states, such as MIT (nothing)")


def run_export(args: Namespace) -> None:
    from train.export import export

    options = (args.dtype, args.max_shard_size, args.scores, args.license)
    print(f"written to {export(args.source, args.out, *options)}")


def add_info(parser: ArgumentParser) -> None:
    parser.add_argument("config", metavar="PATH", help="a YAML file, or the folder of an exported model")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="replaces a value of the YAML file")
    parser.add_argument("--gpus", type=int, default=8, metavar="N", help="how many train, for memory and steps (8)")


def run_info(args: Namespace) -> None:
    from train.info import describe

    if args.gpus < 1:
        raise ValueError(f"--gpus {args.gpus}: at least one is needed")
    print(describe(args.config, args.overrides, args.gpus), end="")


def run_pipeline(args: Namespace) -> None:
    from train.pipeline import load_pipeline, run_pipeline

    run_pipeline(load_pipeline(args.config, args.overrides))
