"""An exported folder through transformers' own Auto classes, against our functions on the same weights."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor

import dualtoken
from data.images import to_pil
from heads.config import DepthHeadConfig
from heads.sampling import SamplingConfig
from mllm.answer import answer
from mllm.config import LLMConfig, UnifiedConfig, VisualSpec
from mllm.generate import generate_images
from mllm.hugging_face import DualTokenModel
from mllm.model import UnifiedModel
from mllm.pretrained import load_unified
from mllm.processor import DualTokenProcessor
from tokenizer import DecoderConfig, DualCodes, DualTokenizer, QuantizerConfig, TokenizerConfig
from tokenizer.tower import VisionTower

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
QUESTIONS = ["What is this?", "Hello! Which one is red?"]


@pytest.fixture(scope="module")
def folder(vocabulary, tmp_path_factory):
    """An export of random weights, larger than usual so that no two inputs give nearly the same output."""
    torch.manual_seed(0)
    quantizer = QuantizerConfig(code_dim=4, codebook_size=8, depth=3)
    decoder = DecoderConfig(in_channels=8, base_channels=8, channel_multipliers=[1, 1], num_res_blocks=1)
    config = TokenizerConfig(pixel_layer=1, semantic_layer=2, pixel=quantizer, semantic=quantizer, decoder=decoder)
    tokenizer = DualTokenizer(config, VisionTower({**SIZES, "image_size": 8, "patch_size": 4})).freeze()
    llm = LLMConfig(**SIZES, num_key_value_heads=1, max_position_embeddings=128, tie_word_embeddings=False)
    unified = UnifiedConfig(llm=llm, heads=DepthHeadConfig(num_layers=1, width=16, num_heads=2, mlp_width=32))
    # An LLM's embedding may be longer than its vocabulary.
    model = UnifiedModel(unified, VisualSpec.of(tokenizer), len(vocabulary) + 3, tokenizer.codebooks())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    path = tmp_path_factory.mktemp("export")
    model.save_pretrained(path, vocabulary, tokenizer)
    return path


@pytest.fixture
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8))


def test_auto_classes_read_an_export(folder):
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    assert type(model) is DualTokenModel and type(processor) is DualTokenProcessor
    assert type(AutoModelForImageTextToText.from_pretrained(str(folder))) is DualTokenModel
    assert AutoConfig.from_pretrained(folder).visual["grid"] == [2, 2]
    assert not model.training and model.device.type == "cpu" and model.dtype == torch.float32
    expected = load_unified(folder)
    for part in ("model", "tokenizer"):
        for (name, one), other in zip(
            getattr(model, part).state_dict().items(), getattr(expected, part).state_dict().values(), strict=True
        ):
            assert torch.equal(one, other), name


def test_exports_from_before_there_were_processors_are_read(folder, tmp_path, picture):
    """They lack processor_config.json and the dtype in config.json."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "processor_config.json").unlink()
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "dtype"}))
    assert AutoModel.from_pretrained(tmp_path).dtype == torch.float32
    old, new = (AutoProcessor.from_pretrained(path)(picture, "What?") for path in (tmp_path, folder))
    assert all(torch.equal(old[name], new[name]) for name in new)


def test_text_is_that_of_our_own_decoder(folder, picture, vocabulary):
    """Greedy, in a batch of two with padding; one question has a picture."""
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    inputs = processor(images=[picture, None], text=QUESTIONS)
    unified = load_unified(folder)
    codes = unified.tokenizer.encode(inputs["pixel_values"])
    images = [DualCodes(codes.pixel[0], codes.semantic[0]), None]
    expected = answer(unified.model, unified.vocabulary, QUESTIONS, images, 12)
    ids = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    assert processor.batch_decode(ids) == expected and len(set(expected)) == 2
    assert ids.max() < len(vocabulary)


@torch.no_grad()
def test_logits_are_those_of_the_training_forward(folder, picture):
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    inputs = processor(images=picture, text=QUESTIONS[0])
    ids = inputs["input_ids"]
    codes = model.encode_images(inputs["pixel_values"])
    embeddings = model.model.embed(ids, ids == model.vocabulary.image_pad, codes)
    states = model.model.decode_packed(embeddings, torch.arange(ids.shape[1])[None])
    expected = states @ model.model.llm.get_output_embeddings().weight.T
    torch.testing.assert_close(model(**inputs).logits, expected)


def test_drawings_and_replies(folder, picture):
    model, unified = DualTokenModel.from_pretrained(folder), load_unified(folder)
    captions, sampling = ["a red apple", "a waving hand"], SamplingConfig(cfg=2.0, top_k=4)
    codes = generate_images(unified.model, unified.vocabulary, captions, sampling, [5, 6])
    expected = [to_pil(image).tobytes() for image in unified.tokenizer.decode(codes.pixel)]
    drawn = model.draw(captions, seeds=[5, 6], cfg=2.0, top_k=4)
    assert [image.tobytes() for image in drawn] == expected
    content = [{"type": "image", "image": picture}, {"type": "text", "text": "What is this?"}]
    reply = model.reply([{"role": "user", "content": content}], seed=1)
    assert all(isinstance(part, str | Image.Image) for part in reply)


def test_precision_and_device_by_the_usual_arguments(folder, tmp_path):
    model = AutoModel.from_pretrained(folder, dtype="bfloat16", device_map="cpu")
    assert model.dtype == torch.bfloat16
    codebooks = [model.model.codebooks.pixel, model.tokenizer.pixel_quantizer.stacked_codebooks()]
    assert [tensor.dtype for tensor in codebooks] == [torch.float32] * 2
    assert model.draw("a red apple", cfg=2.0)[0].size == (8, 8)
    identity, model = model.tokenizer.tokenizer_id, model.half().bfloat16()  # casts of the whole leave codes alone
    assert (model.dtype, model.tokenizer.tokenizer_id) == (torch.bfloat16, identity)
    model.save_pretrained(tmp_path)
    assert AutoModel.from_pretrained(tmp_path).dtype == torch.bfloat16  # as it is stored
    assert DualTokenModel.from_pretrained(tmp_path, dtype=torch.float32, device="cpu").dtype == torch.float32
    for part in (model, AutoProcessor.from_pretrained(folder)):
        part.save_pretrained(tmp_path, is_main_process=True, max_shard_size="5GB")
        for option in ({"push_to_hub": True}, {"variant": "fp16"}, {"safe_serialization": False}):
            with pytest.raises(ValueError, match=f"no option {next(iter(option))}"):
                part.save_pretrained(tmp_path, **option)
    for options, message in (
        ({"dtype": "int8"}, "for the disk alone"),
        ({"dtype": "float7"}, "float7"),
        ({"device_map": {"": 0}}, "single device"),
        ({"device": "cpu", "device_map": "cpu"}, "one of them"),
        ({"quantization_config": {}}, "quantization_config"),
    ):
        with pytest.raises(ValueError, match=message):
            DualTokenModel.from_pretrained(folder, **options)


def test_ids_and_pictures_must_belong_together(folder, picture):
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    inputs = processor(images=picture, text=QUESTIONS[0])
    with pytest.raises(ValueError, match="4 places for patches, but 0 images"):
        model.generate(inputs["input_ids"], inputs["attention_mask"])


def test_nothing_runs_past_the_context(folder):
    """128 tokens; padding does not count."""
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    inputs = processor(text=["what " * 22, "Hi"])
    length = int(inputs["attention_mask"].sum(1).max())
    assert 100 < length < 128
    ids = model.generate(**inputs, max_new_tokens=60, min_new_tokens=1, eos_token_id=[])
    assert ids.shape[1] == 128 - length
    for ask in (model, model.generate):
        with pytest.raises(ValueError, match="tokens long, but the language model's context is 128"):
            ask(**processor(text="what " * 200))


@pytest.mark.parametrize("read", [DualTokenModel, DualTokenProcessor, DualTokenizer, UnifiedModel])
def test_what_is_not_on_the_hub_is_said_in_a_sentence(read):
    with pytest.raises(FileNotFoundError, match=r"^'someone/emoji-model' is neither a folder here nor .*\.$") as error:
        read.from_pretrained("someone/emoji-model", revision="main")
    assert "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError, match="work in a clone of it"):
        read.from_pretrained("assets/emoji-model/elsewhere")


def test_a_repository_in_the_cache_is_read_without_the_hub(folder, tmp_path, monkeypatch):
    """The layout in which huggingface_hub keeps what it has fetched."""
    repository = tmp_path / "models--someone--emoji-model"
    shutil.copytree(folder, repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("0" * 40)
    options = {"cache_dir": tmp_path, "local_files_only": True}
    assert DualTokenModel.from_pretrained("someone/emoji-model", **options).model.visual.grid == (2, 2)
    assert DualTokenizer.from_pretrained("someone/emoji-model", subfolder="tokenizer", **options).grid == (2, 2)
    assert DualTokenizer.from_pretrained(folder).tokenizer_id == load_unified(folder).tokenizer.tokenizer_id


def test_importing_dualtoken_is_enough_and_imports_nothing_heavy(folder):
    code = (
        "import sys, dualtoken\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
        "from transformers import AutoModel, AutoProcessor\n"
        f"print(type(AutoProcessor.from_pretrained({str(folder)!r})).__name__)\n"
        f"print(type(AutoModel.from_pretrained({str(folder)!r})).__name__)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout.split() == ["DualTokenProcessor", "DualTokenModel"], result.stderr


def test_public_names():
    assert dualtoken.DualTokenModel is DualTokenModel and dualtoken.DualTokenProcessor is DualTokenProcessor
