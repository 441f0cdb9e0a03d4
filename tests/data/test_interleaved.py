import json

import numpy as np
import pytest

from data.documents import ImageRef, interleaved_document
from data.image_library import ImageLibrary
from data.interleaved import interleaved_segments
from data.sources import SourceConfig, open_sources

START, PAD, END, STOP = "<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|endoftext|>"


class Store:
    num_patches = 2


IMAGE = ImageRef(Store(), 5)  # type: ignore[arg-type]


def spelt(vocabulary, document):
    """Each token with its kind: learned text in [], a drawn patch x, a seen patch o."""
    parts = []
    for i, token in enumerate(document.input_ids.tolist()):
        if document.image_mask[i]:
            parts.append("x" if document.target_mask[i] else "o")
        else:
            text = vocabulary.decode([token], skip_special=False)
            parts.append(f"[{text}]" if document.labels[i] == token else text)
    return "".join(parts).replace("][", "")


def test_an_interleaved_document_token_by_token(vocabulary):
    segments = [IMAGE, "red ", "apple", IMAGE, IMAGE]
    drawn = interleaved_document(vocabulary, segments, "k")
    assert spelt(vocabulary, drawn) == f"{START}xx[{END}red apple{START}]xx[{END}{START}]xx[{END}{STOP}]"
    seen = interleaved_document(vocabulary, segments, "k", learn_images=False)
    assert spelt(vocabulary, seen) == f"{START}oo{END}[red apple{START}]oo{END}[{START}]oo{END}[{STOP}]"
    assert drawn.images == (IMAGE,) * 3 and not seen.target_mask.any()
    text = interleaved_document(vocabulary, ["red ", "apple"], "k")
    first, *rest = vocabulary.encode("red apple")
    assert text.input_ids.tolist() == [first, *rest, vocabulary.endoftext]
    assert text.labels.tolist() == [-100, *rest, vocabulary.endoftext]  # nothing stands before the first token


def test_both_public_layouts(make_store):
    store = make_store()
    zero, two = ImageRef(store, 0), ImageRef(store, 2)
    obelics = {"texts": ["A", "B", None, "C", None], "images": [None, None, "codes-0.jpg", None, "codes-2"]}
    assert interleaved_segments(obelics, ImageLibrary(store), "it") == ["A", "\n\nB", zero, "C", two]
    infos = [{"image_name": "codes-2.png", "matched_text_index": 1}, {"image_name": "codes-0", "matched_text_index": 1}]
    mmc4 = {"text_list": ["A.", "B.", "C."], "image_info": infos}
    assert interleaved_segments(mmc4, ImageLibrary(store), "it") == ["A.", two, zero, "B.", " C."]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({}, "neither the lists texts and images"),
        ({"texts": ["a"], "images": []}, "1 texts beside 0 images"),
        ({"texts": ["a"], "images": ["codes-0"]}, "not one text or one image name at place 0"),
        ({"texts": [None], "images": [None]}, "not one text or one image name at place 0"),
        ({"texts": [None], "images": ["dog"]}, "names the image 'dog'"),
        ({"texts": [" "], "images": [None]}, "is empty"),
        ({"text_list": ["a"], "image_info": [{"image_name": "c", "matched_text_index": 1}]}, "matched_text_index"),
        ({"text_list": ["a"], "image_info": ["codes-0"]}, "matched_text_index"),
        ({"text_list": [1], "image_info": []}, "something else than texts"),
    ],
)
def test_bad_documents_are_named(vocabulary, make_store, tmp_path, record, message):
    (tmp_path / "d.jsonl").write_text(json.dumps({"id": "d7", **record}))
    config = SourceConfig("interleaved", str(make_store().path), str(tmp_path / "d.jsonl"))
    (source,) = open_sources([config], vocabulary)
    with pytest.raises(ValueError, match=f"document 'd7' of .*d.jsonl.*{message}"):
        source.document(0, np.random.default_rng(0))
