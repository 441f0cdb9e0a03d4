"""The commands that use a trained model: `reconstruct`, `generate`, `chat`, `demo`, `serve`."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from train.commands import SHIPPED_MODEL

if TYPE_CHECKING:
    from heads.sampling import SamplingConfig


def add_reconstruct(parser: ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="pictures in any common format")
    parser.add_argument(
        "--tokenizer",
        default=f"{SHIPPED_MODEL}/tokenizer",
        metavar="DIR",
        help="folder or hub id of a tokenizer; where none is named the shipped one, %(default)s",
    )
    parser.add_argument("--out", default="runs/reconstructions", metavar="DIR", help="where to write (%(default)s)")


def run_reconstruct(args: Namespace) -> None:
    from eval.reconstruct import reconstruct

    reconstruct(args.files, args.tokenizer, args.out)


def add_model(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        default=SHIPPED_MODEL,
        metavar="DIR",
        help="folder or hub id of a unified model; where none is named the shipped one, %(default)s",
    )


def add_sampling(parser: ArgumentParser) -> None:
    """How pictures are drawn; the defaults are those that the demo's model draws best with."""
    parser.add_argument("--cfg", type=float, default=3.0, help="classifier-free guidance; 1 is none (%(default)s)")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 takes the likeliest codes (%(default)s)")
    parser.add_argument(
        "--top-k", type=int, default=200, metavar="K", help="draw from the K likeliest codes; 0: all (%(default)s)"
    )
    parser.add_argument(
        "--top-p", type=float, default=1.0, metavar="P", help="and from a share P of the probability (%(default)s)"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help="any other setting, repeatedly: semantic.cfg=1, cfg_last=1, cfg_curve=cosine, temperature=[1,0.9,0.8,0.7]",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, default=0, help="of the first picture; the next ones count up (%(default)s)"
    )


def sampling_of(args: Namespace) -> SamplingConfig:
    from heads.sampling import SamplingConfig
    from train.config import build_config

    given = {name: getattr(args, name) for name in ("cfg", "temperature", "top_k", "top_p")}
    return build_config(SamplingConfig, [given], "--set", args.set)


def add_generate(parser: ArgumentParser) -> None:
    parser.add_argument("prompt", nargs="?", help='what to draw, such as "a red apple, 3d style"')
    parser.add_argument("--prompts", metavar="FILE", help="many: a .txt file with one a line, or .jsonl with `prompt`")
    add_model(parser)
    parser.add_argument("--num", type=int, default=1, metavar="N", help="how many pictures of each (%(default)s)")
    add_sampling(parser)
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="pictures at a time (%(default)s)")
    parser.add_argument("--nproc", type=int, default=1, metavar="N", help="processes on this machine, one per GPU (1)")
    parser.add_argument("--out", default="runs/pictures", metavar="DIR", help="where to write (%(default)s)")


def run_generate(args: Namespace) -> None:
    from eval.draw import pictures_of, read_prompts
    from train.config import save_config
    from train.draw import DrawConfig, draw_all
    from train.launch import launch

    if (args.prompt is None) == (args.prompts is None):
        raise ValueError("give either one prompt, or --prompts FILE")
    prompts = read_prompts(args.prompts, args.seed) if args.prompts else [(args.prompt, args.seed)]
    wanted = pictures_of(prompts, args.out, args.num)
    options = (args.prompts, args.out, args.model, args.num, args.seed, args.batch_size, sampling_of(args))
    if args.nproc == 1:
        draw_all(DrawConfig(*options), wanted)
        return
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    file = out / "prompts.jsonl"  # words never pass through YAML, where ${…} would be more than words
    file.write_text("".join(json.dumps({"prompt": prompt, "seed": seed}) + "\n" for prompt, seed in prompts))
    save_config(DrawConfig(str(file), *options[1:]), out / "config.yaml")
    launch("train.draw", [str(out / "config.yaml")], args.nproc)


def add_chat(parser: ArgumentParser) -> None:
    parser.add_argument("question", nargs="?", help='one question, such as "What is this?"; without it a dialogue')
    parser.add_argument("--image", metavar="FILE", help="the picture that the question is about")
    add_model(parser)
    parser.add_argument(
        "--max-new-tokens", type=int, default=128, metavar="N", help="length of an answer (%(default)s)"
    )
    parser.add_argument(
        "--text-temperature", type=float, default=0.0, metavar="T", help="of words in a dialogue (%(default)s: greedy)"
    )
    add_sampling(parser)
    parser.add_argument("--out", default="runs/chat", metavar="DIR", help="where drawn pictures go (%(default)s)")


def run_chat(args: Namespace) -> None:
    from heads.sampling import check_seed
    from mllm.dialogue import TextSampling

    if args.max_new_tokens < 1:
        raise ValueError(f"--max-new-tokens {args.max_new_tokens}: an answer has at least one")
    text, sampling = TextSampling(args.text_temperature, max_new_tokens=args.max_new_tokens), sampling_of(args)
    check_seed(args.seed)
    if args.question is not None:
        from eval.chat import ask

        print(ask(args.question, args.image, args.model, args.max_new_tokens))
        return
    from eval.draw import Origin
    from eval.load import load
    from eval.manifest import hash_model
    from eval.terminal import HELP, Terminal, typed

    unified = load(args.model)
    terminal = Terminal(unified, Origin(args.model, hash_model(args.model)[:16]), args.out, text, sampling, args.seed)
    print(HELP, end="")
    if args.image:
        terminal.show(args.image)
    terminal.run(typed())


def add_demo(parser: ArgumentParser) -> None:
    from serve.demo import add_arguments

    add_model(parser)
    add_arguments(parser)


def run_demo(args: Namespace) -> None:
    from serve.demo import run

    run(args)


def add_serve(parser: ArgumentParser) -> None:
    from serve.server import add_arguments

    add_model(parser)
    add_arguments(parser)


def run_serve(args: Namespace) -> None:
    from serve.server import run

    run(args)
