"""Pictures and messages → what the model reads, as a Hugging Face processor.

A conversation is spelt by `Vocabulary` and a picture scaled by `ImageTransform`, which made the training data: ids and
pixel values are those of training, and `<|im_end|>` in a message is ten characters that end no turn.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import BatchFeature, PreTrainedTokenizerFast, ProcessorMixin

from data.images import ImageTransform
from data.vocabulary import ImageSlot, Vocabulary
from mllm.chat_messages import Message, Picture, open_picture, turn
from mllm.decoding import left_pad
from tokenizer import DualTokenizer
from tokenizer.hub import download_options, local_folder, refuse_save_options

SETTINGS = "processor_config.json"
FILES = [SETTINGS, "config.json", "tokenizer/config.json", "vocabulary/*"]


class DualTokenProcessor(ProcessorMixin):
    """Gives input_ids and attention_mask int64[S, T], padded on the left, and pixel_values float32[B, 3, h, w].

    Each of the B pictures has its N places in `input_ids`, row by row.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, image_size: int, crop: str, num_patches: int) -> None:
        self.tokenizer, self.chat_template = tokenizer, None
        self.vocabulary = Vocabulary(tokenizer)
        self.transform = ImageTransform(image_size, crop)
        self.num_patches = num_patches

    @classmethod
    def of(cls, vocabulary: Vocabulary, tokenizer: DualTokenizer) -> "DualTokenProcessor":
        down, across = tokenizer.grid
        return cls(vocabulary.tokenizer, tokenizer.image_size, tokenizer.config.crop, down * across)

    def __call__(
        self,
        images: Picture | Sequence[Picture | None] | None = None,
        text: str | Sequence[str] | None = None,
        **options: Any,
    ) -> BatchFeature:
        """One question a text, each about the picture in its place or, where that is None, about none.

        Without `text`, pixel_values alone.
        """
        _check(options)
        pictures: list[Any] = list(images) if isinstance(images, list | tuple) else [images]
        opened = [None if picture is None else open_picture(picture) for picture in pictures]
        if text is None:
            return BatchFeature({"pixel_values": self.pixel_values([p for p in opened if p is not None])})
        questions = [text] if isinstance(text, str) else list(text)
        if images is None:
            opened = [None] * len(questions)
        if len(opened) != len(questions):
            raise ValueError(f"there are {len(questions)} texts but {len(opened)} images: give one or None for each.")
        prompts = [
            self.vocabulary.answering_prompt(question, None if picture is None else self.num_patches)
            for question, picture in zip(questions, opened, strict=True)
        ]
        return self._batch(prompts, [picture for picture in opened if picture is not None])

    def apply_chat_template(
        self,
        conversation: Sequence[Message] | Sequence[Sequence[Message]],
        add_generation_prompt: bool = True,
        **options: Any,
    ) -> BatchFeature:
        """One conversation or a list of them, in the form of mllm/chat_messages.py.

        The result is always tokens, for in a string typed delimiters would become control tokens.
        """
        _check(options)
        conversations = [conversation] if conversation and isinstance(conversation[0], Mapping) else conversation
        prompts, pictures = list[list[int]](), list[Image.Image]()
        for messages in conversations:
            turns = [turn(message) for message in messages]  # type: ignore[arg-type]
            pictures += [part for _, parts in turns for part in parts if not isinstance(part, str)]
            ids = self.vocabulary.dialogue_prompt((role, self._slots(parts)) for role, parts in turns)
            prompts.append(ids if add_generation_prompt else ids[: -len(self.vocabulary.assistant_start())])
        return self._batch(prompts, pictures)

    def pixel_values(self, pictures: Sequence[Image.Image]) -> Tensor:
        """RGB pictures → float32[B, 3, h, w] in [−1, 1]."""
        empty = torch.zeros(0, 3, self.transform.size, self.transform.size)
        return torch.stack([self.transform(picture) for picture in pictures]) if pictures else empty

    def decode(self, token_ids: Iterable[int], **_: Any) -> str:
        return self.vocabulary.decode([int(token) for token in token_ids])

    def batch_decode(self, sequences: Iterable[Iterable[int]], **_: Any) -> list[str]:
        return [self.decode(row) for row in sequences]

    @classmethod
    def from_pretrained(cls, name: str | Path, **options: Any) -> "DualTokenProcessor":  # type: ignore[override]
        """Reads a folder of `save_pretrained` or an exported model, or fetches the files that it needs from the hub."""
        folder = local_folder(name, FILES, **download_options(options))
        settings = _read(folder / SETTINGS if (folder / SETTINGS).is_file() else folder / "tokenizer/config.json")
        if "tokenizer" in settings:  # exported before there were processors
            tower = settings["tower"]
            size = tower["image_size"]
            num_patches = (size // tower["patch_size"]) ** 2
            settings = {"image_size": size, "crop": settings["tokenizer"]["crop"], "num_patches": num_patches}
        return cls(Vocabulary.from_pretrained(folder / "vocabulary").tokenizer, **settings)

    def save_pretrained(  # type: ignore[override]
        self, folder: str | Path, *, max_shard_size: str | None = None, **options: Any
    ) -> None:
        """Writes processor_config.json and vocabulary/; `max_shard_size`, which `push_to_hub` gives, splits none."""
        refuse_save_options(options)
        self.vocabulary.save_pretrained(Path(folder) / "vocabulary")
        self.save_settings(Path(folder))

    def save_settings(self, folder: Path) -> None:
        # No `processor_class`: transformers would look for that name before it reads config.json, which registers us.
        settings = {"image_size": self.transform.size, "crop": self.transform.crop, "num_patches": self.num_patches}
        (folder / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n")

    def __repr__(self) -> str:
        return f"DualTokenProcessor({self.transform}, {self.num_patches} patches, {len(self.vocabulary)} tokens)"

    def _slots(self, parts: Sequence[str | Image.Image]) -> list[str | ImageSlot]:
        return [part if isinstance(part, str) else ImageSlot(self.num_patches) for part in parts]

    def _batch(self, prompts: Sequence[Sequence[int]], pictures: Sequence[Image.Image]) -> BatchFeature:
        if not prompts:
            raise ValueError("there is nothing to read: give at least one text or conversation.")
        ids, mask = left_pad(prompts, self.vocabulary.endoftext, torch.device("cpu"))
        texts = {"input_ids": ids, "attention_mask": mask.long()}
        return BatchFeature({**texts, "pixel_values": self.pixel_values(pictures)} if pictures else texts)


def _check(options: Mapping[str, Any]) -> None:
    """Of transformers' options, those that say what is done anyway."""
    done = {"return_tensors": "pt", "tokenize": True, "return_dict": True, "padding": True}
    for name, value in options.items():
        if name not in done or value != done[name]:
            expected = f"only {done[name]!r} is possible" if name in done else f"known are {', '.join(done)}"
            raise ValueError(f"{name}={value!r} is not an option of this processor: {expected}.")


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path.parent.parent if path.parent.name == 'tokenizer' else path.parent} is no exported model: it has "
            f"neither {SETTINGS} nor tokenizer/config.json."
        )
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}): export the model again.") from error
