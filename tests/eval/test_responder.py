"""The model's side of the runner: pictures tokenized once, like lengths together, answers in the asked order."""

import io

import pytest
import torch
from PIL import Image

from data.images import ImageTransform, load_image
from data.vocabulary import Vocabulary
from eval import responder
from eval.benchmark import Question
from eval.responder import Responder
from eval.runner import evaluate, open_benchmarks
from heads.config import DepthHeadConfig
from mllm.answer import answer
from mllm.config import LLMConfig, UnifiedConfig, VisualSpec
from mllm.model import UnifiedModel
from mllm.pretrained import Unified
from tokenizer import DecoderConfig, DualCodes, DualTokenizer, QuantizerConfig, TokenizerConfig
from tokenizer.tower import VisionTower


@pytest.fixture(scope="module")
def unified():
    torch.manual_seed(0)
    quantizer = QuantizerConfig(code_dim=4, codebook_size=8, depth=3)
    decoder = DecoderConfig(in_channels=8, base_channels=8, channel_multipliers=[1, 1, 2], num_res_blocks=1)
    config = TokenizerConfig(pixel_layer=1, semantic_layer=2, pixel=quantizer, semantic=quantizer, decoder=decoder)
    sizes = {
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "image_size": 16,
        "patch_size": 4,
    }
    tokenizer = DualTokenizer(config, VisionTower({"hidden_size": 16, **sizes})).eval()
    vocabulary = Vocabulary.train(["What color is it? Yes or no, red or blue?"] * 3, 320)
    llm = LLMConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1
    )
    config = UnifiedConfig(llm=llm, heads=DepthHeadConfig(num_layers=1, width=16, num_heads=2))
    model = UnifiedModel(config, VisualSpec.of(tokenizer), len(vocabulary), tokenizer.codebooks()).eval()
    return Unified(model, vocabulary, tokenizer)


def picture(seed):
    pixels = torch.randint(256, (20, 20, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    data = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(data, "PNG")
    return data.getvalue()


@pytest.fixture
def questions(tmp_path):
    (tmp_path / "a.png").write_bytes(picture(0))
    (tmp_path / "same.png").write_bytes(picture(0))
    images = [tmp_path / "a.png", picture(1), tmp_path / "same.png", picture(0), picture(2)]
    prompts = ["What?", "What color is it, red or blue?", "Is it red?", "A much longer question " * 3, "No?"]
    return [Question(p, image, p, "", i, False, None) for i, (p, image) in enumerate(zip(prompts, images, strict=True))]


def codes_of(unified, image):
    pixel_values = ImageTransform(unified.tokenizer.image_size)(load_image(image))
    with torch.no_grad():
        return DualCodes(*(part[0] for part in unified.tokenizer.encode(pixel_values.unsqueeze(0))))


def test_answers_are_those_of_one_question_at_a_time(unified, questions):
    alone = [
        answer(unified.model, unified.vocabulary, [question.prompt], [codes_of(unified, question.image)], 6)[0].strip()
        for question in questions
    ]
    assert dict(Responder(unified, batch_size=2)(questions, 6)) == dict(enumerate(alone))


def test_a_picture_is_tokenized_once_and_batches_go_from_long_to_short(unified, questions, monkeypatch):
    encoded, asked = [], []
    encode = unified.tokenizer.encode

    def fake_answer(model, vocabulary, prompts, codes, max_new_tokens):
        asked.append(prompts)
        for prompt, code in zip(prompts, codes, strict=True):
            [question] = [question for question in questions if question.prompt == prompt]
            expected = codes_of(unified, question.image)
            assert all(
                torch.equal(got, want) and got.dtype == torch.int64 for got, want in zip(code, expected, strict=True)
            )
        return [f" about {prompt}\n" for prompt in prompts]

    monkeypatch.setattr(responder, "answer", fake_answer)
    ask = Responder(unified, batch_size=2)
    monkeypatch.setattr(unified.tokenizer, "encode", lambda x: encoded.append(len(x)) or encode(x))
    replies = dict(ask(questions, 4))
    assert replies == {place: f"about {question.prompt}".strip() for place, question in enumerate(questions)}
    assert [len(batch) for batch in asked] == [2, 2, 1]
    assert asked[0] == [questions[3].prompt, questions[1].prompt]
    in_answers = len(questions)  # the check above encodes one at a time
    assert sum(encoded) - in_answers == 3  # three pictures under five names
    list(ask(questions, 4))
    assert sum(encoded) - 2 * in_answers == 3


def test_blind_shows_every_question_the_same_grey_picture(unified, questions, monkeypatch):
    seen = []
    monkeypatch.setattr(responder, "answer", lambda m, v, prompts, codes, n: seen.extend(codes) or [""] * len(prompts))
    list(Responder(unified, batch_size=2, blind=True)(questions, 4))
    grey = codes_of(unified, Image.new("RGB", (5, 5), (128, 128, 128)))
    assert all(torch.equal(part, want) for codes in seen for part, want in zip(codes, grey, strict=True))


def test_evaluate_runs_from_a_model_to_scores(unified, tmp_path):
    folder = tmp_path / "val" / "mme" / "color"
    folder.mkdir(parents=True)
    for i in range(2):
        (folder / f"{i}.txt").write_text("Is it red? Please answer yes or no.\tYes\nIs it blue?\tNo\n")
        (folder / f"{i}.png").write_bytes(picture(i))
    benchmarks = open_benchmarks(tmp_path, "val", ["mme"])
    result = evaluate(unified, benchmarks, tmp_path / "out", batch_size=3, blind=True, max_new_tokens=3)
    assert result["tasks"]["mme"]["num_questions"] == 4
    assert result["tasks"]["mme"]["max_new_tokens"] == 3
    assert {"model", "blind", "chance", "constant", "ceiling"} < set(result["tasks"]["mme"])
    assert len((tmp_path / "out" / "mme" / "color.txt").read_text().splitlines()) == 4


def test_a_batch_of_none_is_an_error(unified):
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        Responder(unified, batch_size=0)
