"""A dialogue on the terminal: `dualtoken chat` without a question."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from data.images import load_image
from data.vocabulary import drawing_request
from eval.draw import Origin, Wanted, save_picture
from eval.pictures import decode_picture, encode_picture
from heads.sampling import SamplingConfig
from mllm.dialogue import ImagePiece, Piece, TextSampling, message_of, stream
from mllm.generate import stream_images
from mllm.messages import Message, Segment
from mllm.pretrained import Unified
from tokenizer import DualCodes

HELP = """\
Say something, or:
  /image PATH     show a picture: your next message is about it
  /draw PROMPT    have a picture drawn from these words alone; it becomes part of the dialogue
  /reset          forget the dialogue
  /help           this list
  /quit           or the end of the input; Ctrl-C stops a reply
"""


class Terminal:
    """The history, the pictures shown for the next message, and where drawn pictures go."""

    def __init__(
        self, unified: Unified, origin: Origin, out: str, text: TextSampling, sampling: SamplingConfig, seed: int = 0
    ) -> None:
        self.unified, self.origin, self.out = unified, origin, Path(out)
        self.text, self.sampling, self.seed = text, sampling, seed
        self.history: list[Message] = []
        self.shown: list[DualCodes] = []

    def run(self, lines: Iterable[str]) -> None:
        """Handles a line at a time. A mistake is one sentence, and the dialogue goes on."""
        for line in lines:
            try:
                if line.strip() == "/quit":
                    return
                self.handle(line.strip())
            except (ValueError, OSError) as mistake:
                print(f"error: {mistake}")
            except KeyboardInterrupt:
                print("\nstopped; the dialogue is as it was before")

    def handle(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        commands = {"/image": self.show, "/draw": self.draw, "/reset": self.reset, "/help": self.help}
        if word in commands:
            commands[word](rest.strip())
        elif line.startswith("/"):
            raise ValueError(f"there is no {word}; /help lists what there is")
        elif line:
            self.say(line)

    def show(self, path: str) -> None:
        if not path:
            raise ValueError("/image needs the path of a picture")
        self.shown.append(encode_picture(self.unified, load_image(path)))
        print(f"{path} is shown: ask about it")

    def draw(self, prompt: str) -> None:
        model, vocabulary = self.unified.model, self.unified.vocabulary
        for codes in stream_images(model, vocabulary, [prompt], self.sampling, [self.seed]):
            print(".", end="", flush=True)
            image = DualCodes(*(part[0] for part in codes))
        print()
        self.keep(image, prompt)
        self.history += [Message("user", [drawing_request(prompt)]), Message("assistant", [image])]

    def help(self, _: str) -> None:
        print(HELP, end="")

    def reset(self, _: str) -> None:
        self.history, self.shown = [], []
        print("a new dialogue")

    def say(self, line: str) -> None:
        """The reply, shown as it comes; its exchange enters the history when it is whole."""
        before: list[Segment] = [part for image in self.shown for part in (image, "\n")]
        messages = [*self.history, Message("user", [*before, line])]
        model, vocabulary = self.unified.model, self.unified.vocabulary
        pieces: list[Piece] = []
        try:
            reply = stream(model, vocabulary, messages, self.text, self.sampling, self.seed)
        except ValueError as mistake:  # too long: with the same pictures, the next message would be as well
            if not self.shown:
                raise
            self.shown = []
            raise ValueError(f"{mistake} The pictures that waited for your message are forgotten.") from mistake
        for piece in reply:
            pieces.append(piece)
            if not isinstance(piece, ImagePiece):
                print(_printable(piece.text), end="", flush=True)
            elif piece.done:
                print()
                self.keep(piece.codes, line)
            else:
                print(".", end="", flush=True)
        print()
        self.history, self.shown = [*messages, message_of(pieces)], []

    def keep(self, codes: DualCodes, prompt: str) -> None:
        """Writes a picture that was drawn; the next one has the next seed."""
        wanted = Wanted(prompt, self.seed, self.out / f"picture-{self.seed}.png")
        save_picture(decode_picture(self.unified, codes), wanted, self.sampling, self.origin)
        self.seed += 1
        print(wanted.path)


def typed() -> Iterator[str]:
    """Lines from the keyboard, with editing where the terminal can, up to their end."""
    with suppress(ImportError):
        import readline  # noqa: F401  # input() then edits and remembers lines
    with suppress(EOFError):
        while True:
            yield input("> ")
    print()


def _printable(text: str) -> str:
    """Without escape sequences, which would command the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)
