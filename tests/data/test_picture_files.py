import json
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from data import picture_files
from data.loader import DataConfig, Loader
from data.picture_files import PictureFiles
from data.sources import SourceConfig, open_sources


class Encoder:
    """Codes that tell the colour of a picture; as many positions and depths as the stores of these tests."""

    grid, num_patches, depth = (2, 3), 6, 3

    def __init__(self):
        self.batches = []

    def encode(self, pictures):
        self.batches.append(len(pictures))
        values = [picture.getpixel((0, 0))[0] // 32 for picture in pictures]
        return [(np.full((6, 3), value, np.uint16), np.full((6, 3), value // 2, np.uint16)) for value in values]


@pytest.fixture
def folder(tmp_path):
    """0.png … 5.png in eight shades, a text in disguise, and a picture whose end is missing."""
    (tmp_path / "files/deep").mkdir(parents=True)
    for i in range(6):
        Image.new("RGB", (4, 4), (32 * i, 0, 0)).save(tmp_path / f"files/{'deep/' * (i == 5)}{i}.png")
    (tmp_path / "files/text.png").write_text("no picture")
    noise = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "files/torn.jpg")
    torn = (tmp_path / "files/torn.jpg").read_bytes()
    (tmp_path / "files/torn.jpg").write_bytes(torn[: len(torn) // 2])
    (tmp_path / "secret.png").write_bytes((tmp_path / "files/0.png").read_bytes())
    return tmp_path / "files"


def talk(key, *names):
    said = [{"from": "human", "value": "<image>" * len(names) + "hand?"}, {"from": "gpt", "value": "red"}]
    return {"id": key, "image": list(names), "conversations": said}


def write(path, records):
    path.write_text("\n".join(json.dumps(record) for record in records))
    return str(path)


def test_pictures_are_tokenized_once_and_in_batches(folder):
    files = PictureFiles(folder, encoder := Encoder())
    found = files.codes_of(["3.png", "0.png", "3.png"])
    assert [int(pixel[0, 0]) for pixel, _ in found] == [3, 0, 3]
    files.codes_of(["deep/5.png", "0.png"])
    assert encoder.batches == [2, 1] and files.num_encoded == 3 and files.num_read == 5


def test_the_cache_keeps_what_came_first(folder, monkeypatch):
    monkeypatch.setattr(picture_files, "CACHE_BYTES", 2 * 2 * 6 * 3 * 2)
    files = PictureFiles(folder, encoder := Encoder())
    for _ in range(2):
        files.codes_of(["0.png", "1.png", "2.png"])
    assert encoder.batches == [3, 1]


def test_names_do_not_leave_the_folder(folder):
    files = PictureFiles(folder, Encoder())
    for name in ("../secret.png", str(folder.parent / "secret.png"), "deep/../../secret.png"):
        with pytest.raises(ValueError, match="leads out of the folder"):
            _ = name in files


def test_pictures_of_too_many_pixels_are_refused_by_their_header(folder, monkeypatch):
    monkeypatch.setattr(picture_files, "MAX_PIXELS", 15)
    with pytest.raises(ValueError, match=r"0\.png has 16 pixels, more than the limit of 15"):
        PictureFiles(folder, Encoder()).check("0.png")


def test_store_first_then_files(folder, tmp_path, vocabulary, make_store):
    store = make_store("codes")
    path = write(tmp_path / "t.jsonl", [talk("a", "codes-1.png", "2.png"), talk("b", "nowhere.png")])
    config = SourceConfig("conversation", str(store.path), path, images=str(folder))
    (source,) = open_sources([config], vocabulary, encoder=Encoder())
    first, second = source.document(0, np.random.default_rng(0)).images
    assert (first.index, second.index) == (1, "2.png") and second.store.path == folder
    with pytest.raises(ValueError, match=r"'b' .*'nowhere.png', which '.*codes' nor '.*files' does not hold"):
        source.document(1, np.random.default_rng(0))


def test_a_loader_reads_them_and_skips_what_is_broken(folder, tmp_path, vocabulary, caplog):
    broken = [talk("bad", "text.png"), talk("torn", "1.png", "torn.jpg")]
    records = [*(talk(f"t{i}", f"{i}.png") for i in range(5)), *broken, talk("long", "x" * 300)]
    source = SourceConfig("conversation", path=write(tmp_path / "t.jsonl", records), images=str(folder))
    config = DataConfig([source], 96, 2, pack_window=4, max_bad_share=0.9)
    loader = Loader(config, vocabulary, encoder=(encoder := Encoder()))
    for step in islice(loader, 12):
        (batch,) = step.micro_batches
        is_image = batch.image_mask.sum().item() == 6 * len(batch.pixel)
        assert is_image and batch.keys.count("bad") == 0
        num_torn = batch.keys.count("torn")
        assert (batch.labels == vocabulary.im_end).sum() == len(batch.keys) - num_torn  # nothing of it is learned
        assert batch.num_targets <= step.num_targets
    assert "text.png cannot be read" in caplog.text and "torn.jpg cannot be read" in caplog.text
    metrics = loader.metrics()
    assert metrics["num_bad"] > 0 and metrics["num_bad_pictures"] > 0 and metrics["num_tokenized"] == 5
    assert max(encoder.batches) > 1
    alone = SourceConfig("conversation", path=write(tmp_path / "u.jsonl", broken[1:]), images=str(folder))
    with pytest.raises(ValueError, match=r"pictures are unusable, the last one: .*torn"):
        list(islice(Loader(DataConfig([alone], 96, 2, pack_window=4), vocabulary, encoder=Encoder()), 40))


def test_without_a_tokenizer_there_are_texts_but_no_batches(folder, tmp_path, vocabulary):
    source = SourceConfig("conversation", path=write(tmp_path / "t.jsonl", [talk("a", "1.png")]), images=str(folder))
    (opened,) = open_sources([source], vocabulary)
    assert "hand?" in vocabulary.decode(opened.document(0, np.random.default_rng(0)).input_ids.tolist())
    with pytest.raises(ValueError, match="need a tokenizer, and none is given"):
        Loader(DataConfig([source]), vocabulary)
    with pytest.raises(FileNotFoundError, match="no folder 'nowhere'"):
        PictureFiles("nowhere", None)
