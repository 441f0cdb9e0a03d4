"""`chat` with one question, `reconstruct` and `info` on a tiny exported model."""

import pytest
import torch
from PIL import Image

import dualtoken
from data.batch import Batch
from eval.caption_gain import caption_gain, nats_per_image
from eval.chat import ask
from eval.load import load
from eval.reconstruct import reconstruct
from tests.eval.tiny_unified import CAPTION


def test_caption_gain_is_that_of_the_training_documents(folder):
    """Against the model's own loss on each document alone."""
    unified = load(folder)
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    codes, captions = unified.tokenizer.encode(images), [CAPTION, "What is this?", "apple"]

    def alone(index: int, caption: str | None) -> float:
        prompt = torch.tensor(unified.vocabulary.drawing_prompt(caption))
        ids = torch.cat([prompt, torch.full((4,), unified.vocabulary.image_pad)])[None]
        is_image = ids == unified.vocabulary.image_pad
        one = (part[index : index + 1] for part in codes)
        labels = torch.full_like(ids, -100)
        sums = unified.model(Batch(*one, ids, torch.arange(len(ids[0]))[None], labels, is_image, is_image, []))
        return float((sums.pixel_loss.sum() + sums.semantic_loss.sum()).detach())

    figures = caption_gain(unified, captions, codes)
    assert figures["own"] == pytest.approx(sum(map(alone, range(3), captions)) / 3, rel=1e-4)
    assert figures["other"] == pytest.approx(sum(alone(i, captions[i - 2]) for i in range(3)) / 3, rel=1e-4)
    assert figures["none"] == pytest.approx(sum(alone(i, None) for i in range(3)) / 3, rel=1e-4)
    assert figures["gain"] == figures["other"] - figures["own"] != 0
    assert nats_per_image(unified, captions, codes, batch_size=2) == pytest.approx(figures["own"], rel=1e-5)


def test_answers_depend_on_the_picture_only_if_there_is_one(folder, tmp_path):
    path = tmp_path / "red.png"
    Image.new("RGB", (40, 20), "red").save(path)
    answers = [ask("What is this?", image, folder, max_new_tokens=12) for image in (str(path), str(path), None)]
    assert answers[0] == answers[1]
    assert all(isinstance(text, str) for text in answers)


def test_reconstruct_writes_pairs_under_distinct_names(folder, tmp_path, capsys):
    files = []
    for name, color in (("a/apple.png", "red"), ("b/apple.webp", "blue")):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (20, 20), color).save(tmp_path / name, lossless=True)
        files.append(str(tmp_path / name))
    paths = reconstruct(files, f"{folder}/tokenizer", str(tmp_path / "out"))
    assert [path.name for path in paths] == ["apple.png", "apple-2.png"]
    sheet = Image.open(paths[1])
    assert sheet.width > 1.9 * sheet.height and sheet.getpixel((sheet.width // 4, sheet.height // 2)) == (0, 0, 255)
    assert capsys.readouterr().out.count(" dB ") == 2


def test_a_wrong_file_among_right_ones_writes_nothing(folder, tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "right.png")
    (tmp_path / "wrong.png").write_text("not a picture")
    with pytest.raises(ValueError, match=r"wrong\.png"):
        reconstruct(
            [str(tmp_path / n) for n in ("right.png", "wrong.png")], f"{folder}/tokenizer", str(tmp_path / "out")
        )
    assert not (tmp_path / "out").exists()


def test_info_counts_the_weights_of_an_exported_model(folder, capsys):
    from mllm.pretrained import load_unified

    assert dualtoken.main(["info", folder]) == 0
    shown = capsys.readouterr().out
    model = load_unified(folder).model
    for name in ("llm", "visual_embedding", "pixel_head", "semantic_head"):
        assert f"{sum(p.numel() for p in getattr(model, name).parameters()):,}" in shown
