"""Import of released checkpoints: a synthetic one, made by an independent implementation, gives the same tokenizer."""

from pathlib import Path

import pytest
import torch
from transformers import SiglipConfig, SiglipModel

import dualtoken
from tests.tokenizer.released_model import ReleasedTokenizer
from tokenizer import DualTokenizer
from tokenizer.released import LEFT_OUT, source
from tokenizer.tower import VisionTower
from tokenizer.tower_families import vision_config_of
from train.config import load_config
from train.train_tokenizer import TrainTokenizerConfig

ENCODER = dict(hidden_size=128, intermediate_size=64, num_attention_heads=2)
SIGLIP = SiglipConfig(
    vision_config={**ENCODER, "num_hidden_layers": 4, "image_size": 16, "patch_size": 3},
    text_config={**ENCODER, "num_hidden_layers": 1, "vocab_size": 8, "max_position_embeddings": 4},
)
PIXEL_VALUES = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
DECODER = dict(in_channels=160, multipliers=[1, 2], num_res_blocks=1, base=128)
YAML = """
tokenizer:
  tower: {tower}
  pixel_layer: 2
  pixel_shortcut_layer: 1
  semantic_layer: 3
  projection: attention
  pixel: &quantizer {{code_dim: 32, codebook_size: 24, depth: 3, shared: {shared}}}
  semantic: *quantizer
  decoder: {{in_channels: 160, base_channels: 128, channel_multipliers: [1, 2], num_res_blocks: 1}}
"""


def released(shared: bool) -> ReleasedTokenizer:
    torch.manual_seed(0)
    book = dict(num_entries=24, width=32, depth=3, shared=shared)
    model = ReleasedTokenizer(SiglipModel(SIGLIP), taps=(1, 2, 3), start=8, decoder=DECODER, **book).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # no bias zero and no norm neutral, or swaps would not show
            if parameter.dim() == 1 and "logit" not in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
        hooks = [q.register_forward_pre_hook(fill_codebooks) for q in (model.quantizer_pix, model.quantizer_sem)]
        model(PIXEL_VALUES.flip(-1))
    for hook in hooks:
        hook.remove()
    return model


def fill_codebooks(quantizer: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
    """Entries among the vectors to quantize and among their differences, so that many are chosen at every depth."""
    z = inputs[0].flatten(0, 1)
    for book in quantizer.codebooks:
        some, others = z[torch.randperm(len(z))[:24]].chunk(2)
        book.weight[:-1] = torch.cat([some, some - others])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    SIGLIP.save_pretrained(tmp_path / "tower")  # sizes alone, no weights
    return tmp_path


def write(folder: Path, model: ReleasedTokenizer, shared: bool = True, **changes: torch.Tensor | None) -> list[str]:
    """A checkpoint as the authors save it, with `changes` of keys (None: removed); the command that imports it."""
    state = {f"module.{key}": tensor for key, tensor in model.state_dict().items()}
    for key, tensor in changes.items():
        state[f"module.{key}"] = tensor
    state = {key: tensor for key, tensor in state.items() if tensor is not None}
    torch.save({"epoch": 7, "name": "run", "state_dict": state, "optimizer": {"state": {}}}, folder / "epoch_7.pt")
    (folder / "config.yaml").write_text(YAML.format(tower=folder / "tower", shared=str(shared).lower()))
    out = ["--out", str(folder / "out")]
    return ["import-tokenizer", str(folder / "epoch_7.pt"), "--config", str(folder / "config.yaml"), *out]


@pytest.mark.parametrize("shared", [True, False])
def test_imported_codes_are_identical_and_pictures_equal(folder, shared, capsys):
    model = released(shared)
    assert dualtoken.main(write(folder, model, shared)) == 0
    tokenizer = DualTokenizer.from_pretrained(str(folder / "out"))
    assert tokenizer.tokenizer_id in capsys.readouterr().out
    with torch.no_grad():
        expected, output = model(PIXEL_VALUES), tokenizer(PIXEL_VALUES)
    codes = tokenizer.encode(PIXEL_VALUES)
    for name in ("pixel", "semantic"):
        assert torch.equal(getattr(codes, name), expected[name])
        assert torch.equal(getattr(output, f"{name}_codes"), expected[name])
        assert all(len(expected[name][..., depth].unique()) >= 6 for depth in range(3))  # codes that say something
    torch.testing.assert_close(output.reconstruction, expected["reconstruction"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(output.semantic_features, expected["semantic_features"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(output.pooled, expected["pooled"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(tokenizer.decode(codes.pixel), expected["reconstruction"].clamp(-1, 1))
    book = tokenizer.semantic_quantizer.codebook(2)
    torch.testing.assert_close(book.vector_sum, model.quantizer_sem.codebooks[2].embed_ema)
    torch.testing.assert_close(book.cluster_size, model.quantizer_sem.codebooks[2].cluster_size_ema)


def test_keys_that_are_missing_or_unknown_are_listed(folder, capsys):
    changes = {"decoder.conv_in.weight": None, "prequant_pix.attn.v_bias": None, "prequant_pix.extra": torch.zeros(1)}
    assert dualtoken.main(write(folder, released(True), **changes)) == 2
    error = capsys.readouterr().err
    assert "it lacks decoder.conv_in.weight, prequant_pix.attn.v_bias; it has besides prequant_pix.extra" in error
    depth = ["tokenizer.pixel.depth=2", "tokenizer.semantic.depth=2"]
    assert dualtoken.main([*write(folder, released(True)), *depth]) == 2
    assert "it lacks nothing; it has besides quantizer_pix.codebooks.2.cluster_size_ema" in capsys.readouterr().err
    assert not (folder / "out").exists()


def test_wrong_shapes_are_named(folder, capsys):
    assert dualtoken.main(write(folder, released(True), **{"postquant_sem.mlp.w2.bias": torch.zeros(5)})) == 2
    assert "postquant_sem.mlp.w2.bias gives [5] instead of [128]" in capsys.readouterr().err
    assert dualtoken.main([*write(folder, released(True)), "tokenizer.decoder.base_channels=64"]) == 2
    assert "decoder.conv_in.weight gives [256, 160, 3, 3] instead of [128, 160, 3, 3]" in capsys.readouterr().err


def test_codebooks_that_differ_by_depth_are_not_shared(folder, capsys):
    assert dualtoken.main(write(folder, released(False), shared=True)) == 2
    assert "quantizer_pix differ by depth; set shared: false" in capsys.readouterr().err


def test_what_is_no_checkpoint_is_refused_and_runs_nothing(folder, capsys):
    command = write(folder, released(True))
    ran = folder / "ran"

    class Malicious:
        def __reduce__(self):
            return (Path.touch, (ran,))

    for content, words in ((Malicious(), "no checkpoint of tensors"), ({"model": {}}, "has no state_dict")):
        torch.save(content, folder / "epoch_7.pt")
        assert dualtoken.main(command) == 2
        assert words in capsys.readouterr().err
    (folder / "epoch_7.pt").write_bytes(b"not a checkpoint")
    assert dualtoken.main(command) == 2
    (folder / "epoch_7.pt").unlink()
    assert dualtoken.main(command) == 2
    assert "does not exist" in capsys.readouterr().err
    assert not ran.exists()


@pytest.mark.parametrize(("size", "start"), [(256, 16), (384, 24)])
def test_the_shipped_configs_fit_every_key_and_shape_of_a_checkpoint_at_full_size(size, start):
    path = Path(__file__).parents[2] / f"configs/full/tokenizer_released_{size}.yaml"
    config = load_config(TrainTokenizerConfig, path).tokenizer
    assert (config.pixel.ema_update, config.semantic.ema_update) == ("per_depth", "per_forward")
    assert config.pixel_shortcut_weight == 0.6
    vision = vision_config_of(config.tower)
    taps = (4, 6, 26)
    assert (config.pixel_shortcut_layer, config.pixel_layer, config.semantic_layer) == taps
    decoder = dict(in_channels=1024, base=128, multipliers=[1, 1, 4, 4, 8], num_res_blocks=2)
    book = dict(num_entries=16384, width=32, depth={256: 4, 384: 8}[size], shared=True)
    with torch.device("meta"):
        siglip = SiglipModel(SiglipConfig(vision_config=vision, text_config={**ENCODER, "num_hidden_layers": 1}))
        state = ReleasedTokenizer(siglip, taps, start, decoder, **book).state_dict()
        ours = DualTokenizer(config, VisionTower(vision)).state_dict()
    used = set()
    for name, tensor in ours.items():
        origin = source(name, config)
        used |= set(origin.keys)
        keys = origin.keys[:1] if "codebooks" in name else origin.keys  # whether all are equal, meta tensors cannot say
        assert origin.read(*(state[key] for key in keys)).shape == tensor.shape, name
    assert all(LEFT_OUT.match(key) for key in state.keys() - used)
