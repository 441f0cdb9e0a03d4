"""What a config says about one source of training documents; docs/training-data.md shows each format."""

from dataclasses import dataclass

KINDS = ("caption", "draw", "conversation", "interleaved", "text")
CAPTIONED = ("caption", "draw")  # a document per image of a code store; with `path`, per record of that file


@dataclass(frozen=True)
class SourceConfig:
    """One source of the mixture."""

    kind: str  # caption | draw | conversation | interleaved | text
    codes: str = ""  # folder of the code store
    path: str = ""  # file of the conversations, interleaved documents, texts or captioned pictures
    weight: float = 1.0  # share of the documents, relative to the other sources
    caption_dropout: float = 0.0  # share of the drawings without a caption, for classifier-free guidance
    balance: str = ""  # metadata keys such as "concept,style": a document per value, its image drawn among its own
    caption_choice: str = "all"  # all: another phrasing each time; first: the canonical one
    num_documents: int = 0  # only so many, evenly spaced, such as a few to overfit on; 0: all
    name: str = ""  # in logs; the kind if empty
    images: str = ""  # folder of the picture files that records name and `codes` does not hold, tokenized as they come
    epochs: int = 0  # passes over the documents after which the source is left out; 0: it repeats for ever
    learn_images: bool = True  # interleaved: whether images are drawn, or only read

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"source kind {self.kind!r} is unknown: choose among {', '.join(KINDS)}")
        if self.caption_choice not in ("all", "first"):
            raise ValueError(f"caption_choice={self.caption_choice!r} of a {self.kind} source: choose all or first")
        if not 0 <= self.caption_dropout <= 1:
            raise ValueError(f"caption_dropout={self.caption_dropout} of a {self.kind} source is not between 0 and 1")
        if self.caption_dropout and self.kind != "draw":
            raise ValueError(f"caption_dropout is for draw sources, not for {self.kind}: remove it")
        if self.balance and not self.reads_store:
            raise ValueError(f"balance is for caption and draw sources without path=, not for {self.kind}: remove it")
        if not self.learn_images and self.kind != "interleaved":
            raise ValueError(f"learn_images is for interleaved sources, not for {self.kind}: remove it")
        for key in ("num_documents", "weight", "epochs"):
            if getattr(self, key) < 0:
                raise ValueError(f"{key}={getattr(self, key)} of a {self.kind} source is negative")
        if self.kind == "text" and self.images:
            raise ValueError("images is for sources with pictures, not for text: remove it")
        if self.kind != "text" and not self.codes and not self.images:
            raise ValueError(
                f"a {self.kind} source needs codes=, the folder that `dualtoken pretokenize` wrote, or images=, a "
                "folder of picture files, with path="
            )
        if not self.path and (self.kind not in CAPTIONED or self.images):
            raise ValueError(f"a {self.kind} source needs path=, the file of its records")

    @property
    def reads_store(self) -> bool:
        """Whether its documents are the rows of a code store, and not the records of a file."""
        return self.kind in CAPTIONED and not self.path
