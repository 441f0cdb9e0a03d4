import re

import pytest
import torch
import yaml
from PIL import Image

import dualtoken
from data.documents import ImageRef, Turn, conversation_document, drawing_document, text_document
from data.packing import collate
from data.vocabulary import Vocabulary
from train.inspect_rows import view_rows
from train.inspect_text import rows_as_text

from .tiny_mllm import make_world, tiny_document


class Store:
    num_patches, depth = 2, 3

    def codes_of(self, indices):
        return [(torch.zeros(2, 3).numpy(), torch.zeros(2, 3).numpy()) for _ in indices]


IMAGE = ImageRef(Store(), 0)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary.train(["Draw: a red apple", "user assistant hand"] * 3, 320)


def test_rows_are_read_back_from_the_batch(vocabulary):
    """Every token once, every document with its key, characters of several tokens whole."""
    drawing = drawing_document(vocabulary, IMAGE, "red", "drawing")
    talk = conversation_document(vocabulary, [Turn("user", [IMAGE, "é🍎"]), Turn("assistant", ["hand"])], "talk")
    text = text_document(vocabulary, "apple", "text")
    width = len(drawing) + len(talk) + 4
    batch = collate([[drawing, talk], [text]], width, vocabulary.endoftext, 2, 3)
    rows = view_rows(batch, vocabulary)
    assert [[d.key for d in row.documents] for row in rows] == [["drawing", "talk", None], ["text", None]]
    assert [row.num_filled for row in rows] == [width - 4, len(text)]
    for row in rows:
        for document in row.documents:
            spans = [range(piece.place, piece.place + piece.num_tokens) for piece in document.pieces]
            places = [place for span in spans for place in span]
            assert document.key is None or places == list(range(document.start, document.start + document.length))
    assert rows_as_text(rows, in_colour=False).splitlines()[2:6] == [
        "<|im_start|>user",
        "Draw: red<|im_end|>",
        "<|im_start|>assistant",
        "⟦<|vision_start|>⟧⟨image 0, drawn, 2 positions⟩⟦<|vision_end|><|im_end|>⟧",
    ]
    plain = re.sub("\033\\[[0-9;]*m", "", rows_as_text(rows, in_colour=True))
    assert plain == rows_as_text(rows, in_colour=False).replace("⟦", "").replace("⟧", "")
    assert "⟨image 1, seen, 2 positions⟩<|vision_end|>é🍎<|im_end|>" in plain


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspected")
    make_world(folder)
    (folder / "c.yaml").write_text(yaml.safe_dump(tiny_document(folder)))
    return folder


def test_the_command_shows_rows_and_figures(shown, capsys):
    arguments = ["inspect-data", str(shown / "c.yaml"), "--rows", "3", "--out", str(shown / "seen")]
    assert dualtoken.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "row 2 ·" in printed and "row 3 ·" not in printed and "image-" in printed
    assert "documents of 1.draw (weight 33.33%)" in printed and "positions of an image" in printed
    page = (shown / "seen/rows.html").read_text()
    assert page.count("<h2>Row") == 3 and "data:image/png;base64," in page and "Is the number of this apple" not in page
    assert "http" not in page and "<script" not in page and 'class="learned"' in page
    assert Image.open(shown / "seen/rows.png").width > 1000
    assert not (shown / "run").exists()  # nothing of a run is made


def test_without_the_tokenizer_s_folder_the_images_stay_blank(shown, capsys):
    arguments = [f"tokenizer={shown}/nowhere", "--rows", "1", "--out", str(shown / "blank")]
    assert dualtoken.main(["inspect-data", str(shown / "c.yaml"), *arguments]) == 0
    page = (shown / "blank/rows.html").read_text()
    assert 'class="blank"' in page and "data:image" not in page
    assert "not decoded" in capsys.readouterr().err


def test_mistakes(shown, capsys):
    assert dualtoken.main(["inspect-data", str(shown / "c.yaml"), "--rows", "0"]) == 2
    assert "at least one row" in capsys.readouterr().err
