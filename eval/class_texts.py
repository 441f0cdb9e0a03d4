"""What classes and pictures are called, from text files: class names with templates, and the captions of Flickr8k.

`assets/imagenet` holds the 1000 names and 80 templates with which zero-shot ImageNet is measured everywhere (those of
CLIP, as open_clip has them), each name beside its synset, the folder of its pictures, in the order of the labels.
"""

from pathlib import Path
from typing import Any, NamedTuple

from eval.files import read_text


class ClassTexts(NamedTuple):
    """Texts that describe classes, any number for each; a class is a number from 0."""

    class_of_label: dict[Any, int]  # how the data name a class → its number
    texts: list[str]
    text_class: list[int]

    @property
    def num_classes(self) -> int:
        return len(set(self.class_of_label.values()))


def templated_classes(classes: str | Path, templates: str | Path) -> ClassTexts:
    """`classes`: a line `LABEL<tab>NAME` for each, or `NAME` where the label is the name; `templates`: with a {} each.

    A picture may also name its class by the number of the line, from 0. Raises FileNotFoundError or ValueError.
    """
    rows = [line.partition("\t") for line in _lines(classes)]
    class_of_label: dict[Any, int] = {}
    for number, (label, _, _) in enumerate(rows):
        if class_of_label.setdefault(label, number) != number:
            raise ValueError(f"{classes} holds the class {label!r} twice: where names repeat, write LABEL<tab>NAME")
    sentences = _lines(templates)
    for sentence in sentences:
        if sentence.count("{}") != 1:
            raise ValueError(f"{templates}: the template {sentence!r} must hold {{}} once, where the name belongs")
    texts = [sentence.replace("{}", name or label) for label, _, name in rows for sentence in sentences]
    text_class = [number for number in range(len(rows)) for _ in sentences]
    return ClassTexts(class_of_label | {number: number for number in range(len(rows))}, texts, text_class)


class CaptionedFiles(NamedTuple):
    files: list[Path]
    captions: list[str]
    caption_file: list[int]  # of each caption, an index into `files`


def flickr8k(captions_file: str | Path, images: str | Path) -> CaptionedFiles:
    """`flickr8k_test_karpathy.txt` (a header, then `<name>.jpg,<caption>`, five for each picture) and their folder.

    Raises FileNotFoundError or ValueError, naming the line or the picture.
    """
    index: dict[Path, int] = {}
    captions, caption_file = [], []
    for number, line in enumerate(_lines(captions_file)[1:], start=2):
        name, found, caption = line.partition(".jpg,")  # captions hold commas too
        if not found or not caption.strip():
            raise ValueError(f"{captions_file} line {number} is not `<name>.jpg,<caption>`: give Karpathy's test split")
        captions.append(caption.strip())
        caption_file.append(index.setdefault(Path(images, f"{name}.jpg"), len(index)))
    if not captions:
        raise ValueError(f"{captions_file} holds no captions under its header")
    if missing := [path for path in index if not path.is_file()]:
        raise FileNotFoundError(f"{len(missing)} pictures of {captions_file} are missing, {missing[0]} for one")
    return CaptionedFiles(list(index), captions, caption_file)


def _lines(path: str | Path) -> list[str]:
    lines = [line.strip() for line in read_text(path).split("\n") if line.strip()]
    if not lines:
        raise ValueError(f"{path} is empty")
    return lines
