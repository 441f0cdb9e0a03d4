"""The face of the project: the command `dualtoken` and the public names.

    from dualtoken import DualTokenizer, UnifiedModel, load_unified

Nothing heavy is imported until a command or a name needs it, so that `dualtoken --help` answers at once. A user's mistake
(ValueError, OSError) becomes one sentence and exit code 2; DUALTOKEN_DEBUG=1 shows its traceback instead.
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

from train.commands import COMMANDS

PUBLIC_NAMES = {
    "DualCodes": "tokenizer",
    "DualTokenizer": "tokenizer",
    "UnifiedModel": "mllm.model",
    "load_unified": "mllm.pretrained",
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
    commands = parser.add_subparsers(dest="command", prog="dualtoken", required=True, metavar="COMMAND", help=argparse.SUPPRESS)
    for name, command in COMMANDS.items():
        sub = commands.add_parser(
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
        print(f"dualtoken: error: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
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
