"""The tokenizer's stages at miniature size: killed and resumed, in two processes, frozen in parts, refused.

Long because all these promises are about one stage, and share its miniature world.
"""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor
from transformers import Dinov2Config, Dinov2Model

import dualtoken
from tests.tokenizer.conftest import TOWER
from tests.train.tiny_mllm import run_ranks
from tests.train.tiny_tokenizer import make_world, tiny_config, tiny_document
from tokenizer import DecoderConfig, DualTokenizer, QuantizerConfig, TokenizerConfig
from tokenizer.tower import VisionTower
from train import train_tokenizer
from train.checkpoint import latest_checkpoint, load_checkpoint
from train.distributed import World, join_world
from train.loop import Loop
from train.precision import set_matmul_precision
from train.run import read_log
from train.tokenizer_parts import freeze_all_but, part_of
from train.train_tokenizer import Trainer, TrainTokenizerConfig, main

ALONE = World()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    make_world(folder)
    return folder


def exported(config: TrainTokenizerConfig) -> dict[str, Tensor]:
    return load_file(Path(config.out) / "export" / "model.safetensors")


def log_of(config: TrainTokenizerConfig) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k != "seconds"} for line in read_log(Path(config.out) / "log.jsonl")]


def different(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> list[str]:
    assert ours.keys() == theirs.keys()
    return [name for name in ours if not torch.equal(ours[name], theirs[name])]


# --- killed and resumed -------------------------------------------------------------------------------------------


class Killed(Exception):
    pass


def main_killed_in(config: TrainTokenizerConfig, step: int) -> None:
    """As a kill in the middle of `step` would leave the run folder."""
    whole_step, calls = Trainer.step, []

    def dying_step(self: Trainer, batches: Any, number: int) -> dict[str, Tensor]:
        metrics = whole_step(self, batches, number)
        calls.append(number)
        if number == step:
            raise Killed
        return metrics

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Trainer, "step", dying_step)
        main(config)
    assert calls[-1] == step


@pytest.fixture(scope="module")
def uninterrupted(world: Path) -> TrainTokenizerConfig:
    config = tiny_config(world, out=str(world / "uninterrupted"))
    set_matmul_precision("fp32")
    main(config)
    return config


@pytest.mark.parametrize("steps", [[2], [3, 5], "random"], ids=str)
def test_a_killed_run_ends_bit_identical(world, tmp_path, uninterrupted, steps):
    """Everything that learns: both networks and optimizers, codebooks, average, generator of random numbers, data."""
    if steps == "random":
        steps = sorted(random.sample(range(8), 2))
    config = replace(uninterrupted, out=str(tmp_path / "run"))
    for step in steps:
        main_killed_in(config, step)
    main(config)
    assert different(exported(config), exported(uninterrupted)) == []
    assert log_of(config) == log_of(uninterrupted)
    ours, theirs = (load_checkpoint(latest_checkpoint(Path(c.out) / "checkpoints")) for c in (config, uninterrupted))
    assert different(ours["discriminator"], theirs["discriminator"]) == []
    assert different(ours["ema"], theirs["ema"]) == []
    assert ours["ranks"][0]["batches"] == theirs["ranks"][0]["batches"]


def test_the_log_tells_how_the_parts_fare(uninterrupted):
    first, *_, last = log_of(uninterrupted)
    names = {"loss", "grad_norm", "reconstruction", "pixel_commitment", "semantic_usage", "pixel_perplexity"}
    assert names | {"pixel_restarts", "semantic_restarts", "lr"} <= first.keys()
    balance = {"discriminator.loss", "discriminator.real", "discriminator.fake", "discriminator.accuracy"}
    assert balance | {"discriminator.grad_norm", "adversarial", "adaptive_weight"} == last.keys() - first.keys()
    assert all(value is not None for line in (first, last) for value in line.values())
    assert last["semantic_restarts"] > 0  # random vectors are drawn to the end: a generator left behind would show


def test_a_changed_config_is_refused(uninterrupted, world):
    with pytest.raises(ValueError, match=r"ema\.decay: 0\.9 → 0\.5"):
        main(replace(uninterrupted, ema=replace(uninterrupted.ema, decay=0.5)))
    saved = Path(uninterrupted.out) / "config.yaml"
    assert yaml.safe_load(saved.read_text())["ema"]["decay"] == 0.9


# --- two processes ------------------------------------------------------------------------------------------------


def two_ranks(folder: Path) -> None:
    """Everything that needs two processes, in one start; every rank writes what it saw."""
    set_matmul_precision("fp32")
    world, seen = join_world(), {}
    seen["step"] = one_step(still(folder, batch_size=3), world)
    config = tiny_config(folder, out=str(folder / "ranks"))
    main_killed_in(config, 4)
    main(config)
    whole = replace(config, out=str(folder / "whole"))
    main(whole)
    saved = load_checkpoint(latest_checkpoint(Path(config.out) / "checkpoints"))
    seen["state"] = load_checkpoint(latest_checkpoint(Path(whole.out) / "checkpoints"))["model"]
    seen["resumed"] = different(saved["model"], seen["state"])
    seen["mine"] = LAST_MODEL[0].state_dict()
    torch.save(seen, folder / f"seen-{world.rank}.pt")


LAST_MODEL: list[DualTokenizer] = []


def remember_models() -> None:
    """Keeps the model that `main` trains on this rank, which it does not return."""
    begin = train_tokenizer.begin

    def remembering(*arguments: Any) -> DualTokenizer:
        LAST_MODEL[:] = [begin(*arguments)]
        return LAST_MODEL[0]

    train_tokenizer.begin = remembering


def ranks(folder: Path) -> None:
    remember_models()
    two_ranks(folder)


def still(folder: Path, batch_size: int, accumulation: int = 1, **changes: Any) -> TrainTokenizerConfig:
    """Nothing that depends on how a batch is divided: no restarts, whose vectors are drawn from rank 0's share."""
    document = tiny_document(folder)
    for branch in ("pixel", "semantic"):
        document["tokenizer"][branch]["restart_below"] = 0.0
    adversarial = {**document["adversarial"], "start": 0}
    data = {**document["data"], "batch_size": batch_size}
    kept = {"adversarial": adversarial, "data": data, "accumulation": accumulation, "tokenizer": document["tokenizer"]}
    return tiny_config(folder, **{**kept, **changes})


def one_step(config: TrainTokenizerConfig, world: World, frozen: bool = False) -> dict[str, Any]:
    """Gradients, metrics and codebooks after one step from the same start."""
    torch.manual_seed(0)
    trainer = Trainer(config, world)
    for quantizer in (trainer.model.pixel_quantizer, trainer.model.semantic_quantizer):
        for book in quantizer.codebooks:
            book.cluster_size.fill_(2.0)
            book.vector_sum.copy_(2 * book.embedding)
        if frozen:
            quantizer.freeze()
    transform = train_tokenizer.ImageTransform(trainer.model.image_size)
    batches = train_tokenizer.open_batches(config.data, transform, world.rank, world.size)
    metrics = trainer.step(batches, 0)
    networks = {"generator": trainer.model, "discriminator": trainer.adversary.discriminator}
    return {
        "metrics": {name: world.mean(value.float()).item() for name, value in metrics.items()},
        "gradients": {f"{n}.{k}": p.grad for n, net in networks.items() for k, p in net.named_parameters()},
        "books": dict(trainer.model.named_buffers()),
    }


@pytest.fixture(scope="module")
def seen(world: Path) -> list[dict[str, Any]]:
    run_ranks(ranks, 2, world)
    return [torch.load(world / f"seen-{rank}.pt") for rank in range(2)]


def assert_same_step(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours["metrics"] == pytest.approx(theirs["metrics"], rel=1e-4, abs=1e-5)
    for kind in ("gradients", "books"):
        torch.testing.assert_close(ours[kind], theirs[kind], rtol=1e-3, atol=1e-6)


def test_two_ranks_equal_one_with_the_double_batch(world, seen):
    """Gradients of both networks, the adaptive weight, norms, metrics, codebooks and their statistics."""
    alone = one_step(still(world, batch_size=6), ALONE)
    for rank in seen:
        assert_same_step(rank["step"], alone)
    assert alone["gradients"]["discriminator.layers.0.weight"].any()


def test_ranks_agree_to_the_bit_and_resume_so(world, seen):
    assert seen[0]["resumed"] == seen[1]["resumed"] == []
    assert different(seen[0]["mine"], seen[1]["mine"]) == []  # restarts included, which draw random vectors
    assert different(exported(tiny_config(world, out=str(world / "ranks"))),
                     exported(tiny_config(world, out=str(world / "whole")))) == []  # fmt: skip
    assert read_log(world / "whole" / "log.jsonl")[-1]["semantic_restarts"] > 0


def test_another_number_of_processes_is_refused(world, seen):
    with pytest.raises(ValueError, match=r"of 2 process\(es\), this run has 1; continue with --nproc 2"):
        main(tiny_config(world, out=str(world / "whole")))


def test_nproc_starts_processes_and_names_mistakes_once(world, tmp_path, capsys):
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(tiny_document(world, out=str(tmp_path / "run"), accumulation=1)))
    command = ["train-tokenizer", str(config), "loop.steps=2", "--nproc", "2"]
    assert dualtoken.main([*command, "data.batch_size=7"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "exceeds the 12 images" in error
    assert dualtoken.main(command) == 0
    assert json.loads((tmp_path / "run/result.json").read_text())["tokenizer_id"]
    assert dualtoken.main([*command[:-1], "0"]) == 2


# --- one step -----------------------------------------------------------------------------------------------------


def test_micro_batches_add_up_to_one_large_batch(world):
    """With frozen codebooks: those learn at every micro-batch. Gradients of L_G are weighed by the micro-batch."""
    no_adversary = {"adversarial": {"weight": 0.75, "start": 9, "base_channels": 8}}
    whole = one_step(still(world, 6, **no_adversary), ALONE, frozen=True)
    parts = one_step(still(world, 3, 2, **no_adversary), ALONE, frozen=True)
    assert parts["metrics"] == pytest.approx(whole["metrics"], rel=1e-4, abs=1e-6)
    generator = [{k: g for k, g in s["gradients"].items() if k.startswith("generator")} for s in (whole, parts)]
    torch.testing.assert_close(*generator, rtol=1e-3, atol=1e-7)


def test_the_adversarial_term_is_the_weighted_gradient_and_stays_on_its_side(world):
    """Plain autograd on a copy: the total's gradient at the last layer, and the discriminator's own gradient."""
    config = still(world, 3, ema={"decay": 0.0}, optimizer={"gradient_clipping": 0.0})
    torch.manual_seed(0)
    trainer = Trainer(config, ALONE)
    adversary, model = trainer.adversary, trainer.model.eval()
    images = torch.rand(3, 3, 16, 16) * 2 - 1
    parts = trainer.backward(images, adversary)
    ours = {name: p.grad.clone() for name, p in model.named_parameters()}
    judged = [p.grad.clone() for p in adversary.discriminator.parameters()]
    model.zero_grad(set_to_none=True)
    adversary.discriminator.zero_grad(set_to_none=True)
    output = model(images)
    loss, _ = trainer.objective(output, images)
    last, score = model.decoder.head[-1].weight, -adversary.discriminator(output.reconstruction).mean()
    mse = (output.reconstruction - images).square().mean()
    norms = [torch.autograd.grad(part, last, retain_graph=True)[0].norm() for part in (mse, score)]
    weight = (norms[0] / (norms[1] + 1e-4)).clamp(0.3, 10)
    (loss + 0.75 * weight * score).backward()
    torch.testing.assert_close(ours, {name: p.grad for name, p in model.named_parameters()})
    torch.testing.assert_close(parts["adaptive_weight"], weight)
    real, fake = (adversary.discriminator(x) for x in (images, output.reconstruction.detach()))
    leaky = torch.nn.functional.leaky_relu
    hinge = (leaky(1 - real).mean() + leaky(1 + fake).mean()) / 2
    own = torch.autograd.grad(hinge, adversary.discriminator.parameters())
    torch.testing.assert_close(judged, list(own))


def test_the_discriminator_waits_for_its_start(world):
    torch.manual_seed(0)
    config = tiny_config(world)
    trainer = Trainer(config, ALONE)
    transform = train_tokenizer.ImageTransform(16)
    batches = train_tokenizer.open_batches(config.data, transform)
    weight = trainer.adversary.discriminator.layers[0].weight
    before = weight.detach().clone()
    for step in range(4):
        metrics = trainer.step(batches, step)
        assert torch.equal(before, weight) == ("adversarial" not in metrics) == (step < 3)


def test_a_loss_that_is_not_finite_changes_nothing_that_gradients_train(world):
    torch.manual_seed(0)
    trainer = Trainer(still(world, 3), ALONE)
    networks = (trainer.model, trainer.adversary.discriminator)
    before = [p.detach().clone() for network in networks for p in network.parameters()]
    broken = [train_tokenizer.open_batches(still(world, 3).data, train_tokenizer.ImageTransform(16)).__next__()]
    broken[0].pixel_values[0] = torch.nan
    trainer.step(iter(broken), 0)
    assert all(torch.equal(a, b) for a, b in zip(before, (p for n in networks for p in n.parameters()), strict=True))


# --- stages as data -----------------------------------------------------------------------------------------------

WARMUP = ["head", "pixel", "semantic", "decoder"]
SEMANTIC = ["deep", "head", "semantic"]


@pytest.mark.parametrize(("trainable", "num_layers"), [(WARMUP, 1), (SEMANTIC, 2)], ids=["warmup", "semantic"])
def test_a_stage_trains_its_parts_alone_and_continues_another(world, uninterrupted, tmp_path, trainable, num_layers):
    init, weight = str(Path(uninterrupted.out) / "export"), 0.75 if "decoder" in trainable else 0.0
    changes = {"init": init, "trainable": trainable, "adversarial": {"weight": weight}, "ema": {"decay": 0.0}}
    config = tiny_config(world, out=str(tmp_path), **changes)
    main(config)
    changed = different(exported(config), exported(uninterrupted))
    layers = {name.split(".")[4] for name in changed if ".encoder.layers." in name}
    assert layers == {str(2 - i) for i in range(num_layers)}  # the pixel tap is at layer 1, the semantic one at 2
    assert {n.split(".")[0] for n in changed} == {
        m for m in ("tower", "pixel_in", "pixel_out", "pixel_quantizer", "semantic_in", "semantic_out", "decoder",
                    "semantic_quantizer") if m.split("_")[0] in {*trainable, "tower"}
    }  # fmt: skip
    assert not any("embeddings" in name for name in changed)


def test_stages_that_cannot_be_are_refused(world, uninterrupted):
    with pytest.raises(ValueError, match="must name one or more of shallow"):
        tiny_config(world, trainable=["tower"])
    with pytest.raises(ValueError, match="add decoder to trainable"):
        tiny_config(world, trainable=SEMANTIC)
    tokenizer = {**tiny_document(world)["tokenizer"], "pixel_layer": 2}
    config = tiny_config(world, init=str(Path(uninterrupted.out) / "export"), tokenizer=tokenizer, out=str(world / "x"))
    with pytest.raises(ValueError, match=r"taps at layers \(None, 1, 2\), tokenizer\.\* at \(None, 2, 2\)"):
        main(config)


def test_a_dinov2_tower_trains_in_the_same_parts(world, tmp_path):
    sizes = {name: value for name, value in TOWER.items() if name != "intermediate_size"}
    Dinov2Model(Dinov2Config(**sizes)).save_pretrained(tmp_path)
    tokenizer = {**tiny_document(world)["tokenizer"], "tower": str(tmp_path)}
    trainer = Trainer(still(world, 3, tokenizer=tokenizer, gradient_checkpointing=True), ALONE)
    images = torch.rand(3, 3, 16, 16) * 2 - 1
    hidden = trainer.objective.reference_tower.run(trainer.objective.reference_tower.embed(images), 1, 2)
    torch.testing.assert_close(trainer.objective.reference(images).features, hidden[:, 1:])  # without the class token
    assert trainer.backward(images, trainer.adversary)["loss"].isfinite()
    parts = {name: part_of(name, 1, 2) for name, _ in trainer.model.named_parameters()}
    layers = {name.split(".")[4]: part for name, part in parts.items() if ".encoder.layer." in name}
    assert layers == {"0": "shallow", "1": "deep", "2": "head"}
    assert parts["tower.model.embeddings.cls_token"] == "shallow" and parts["tower.model.layernorm.weight"] == "head"


@pytest.mark.parametrize(("trainable", "learns"), [("pixel", True), ("semantic", True), ("decoder", False)])
def test_a_single_codebook_learns_with_either_branch(trainable, learns):
    quantizer, decoder = QuantizerConfig(4, 8, 3), DecoderConfig(8, 8, [1, 1], 1)
    config = TokenizerConfig(
        pixel_layer=2, semantic_layer=2, single_codebook=True, pixel=quantizer, semantic=quantizer, decoder=decoder
    )
    model = DualTokenizer(config, VisionTower(TOWER))
    freeze_all_but(model, [trainable])
    assert model.pixel_quantizer.codebooks[0].frozen != learns
    assert model.pixel_in.linear.weight.requires_grad == learns
    assert model.pixel_out.linear.weight.requires_grad == (trainable == "pixel")


def test_the_export_has_the_averaged_weights(world, uninterrupted):
    checkpoint = load_checkpoint(latest_checkpoint(Path(uninterrupted.out) / "checkpoints"))
    weights = exported(uninterrupted)
    assert checkpoint["ema"].keys() <= weights.keys()
    assert all(torch.equal(weights[name], average) for name, average in checkpoint["ema"].items())
    assert different({n: checkpoint["model"][n] for n in checkpoint["ema"]}, checkpoint["ema"])
    books = {name: tensor for name, tensor in weights.items() if "quantizer" in name}
    assert different({name: checkpoint["model"][name] for name in books}, books) == []


def test_a_missing_vgg_is_one_sentence(world, tmp_path, capsys):
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(tiny_document(world, out=str(tmp_path / "run"))))
    words = ["loss.perceptual=1", "loss.perceptual_weights=no/vgg.pth"]
    assert dualtoken.main(["train-tokenizer", str(config), *words]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("dualtoken: error: LPIPS needs torchvision's VGG16")


# --- how it is computed -------------------------------------------------------------------------------------------


def test_checkpointed_gradients_are_the_same_from_layers_that_run_twice(world):
    def step_and_norms(checkpointing: bool) -> tuple[dict[str, Tensor], int]:
        norm, calls = torch.nn.LayerNorm.forward, []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.nn.LayerNorm, "forward", lambda self, x: (calls.append(self), norm(self, x))[1])
            gradients = one_step(still(world, 3, gradient_checkpointing=checkpointing), ALONE)["gradients"]
        return gradients, len(calls)

    (plain, norms), (checkpointed, more_norms) = step_and_norms(False), step_and_norms(True)
    assert different(plain, checkpointed) == []
    assert more_norms == norms + 2 * 3  # two norms in each of three layers


def test_compiled_networks_compute_the_same(world):
    config = still(world, 3)
    with pytest.MonkeyPatch.context() as patch:
        compile_networks = train_tokenizer.compile_networks
        patch.setattr(train_tokenizer, "compile_networks", lambda *a: compile_networks(*a, backend="aot_eager"))
        compiled = one_step(replace(config, compile=True), ALONE)
    torch._dynamo.reset()
    assert_same_step(compiled, one_step(config, ALONE))


def test_autocast_leaves_the_quantizers_in_fp32(world):
    """Codes and codebooks are those of plain fp32 arithmetic on what the bf16 projection gave."""
    torch.manual_seed(0)
    model = Trainer(still(world, 3), ALONE).model.train()
    images = torch.rand(3, 3, 16, 16) * 2 - 1
    projected: list[Tensor] = []
    model.pixel_in.register_forward_hook(lambda *call: projected.append(call[-1]))
    book = model.pixel_quantizer.codebooks[0]
    before = book.embedding.clone()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(images)
    assert projected[0].dtype == torch.bfloat16 and output.pixel_commitment.dtype == torch.float32
    distances = (projected[0].flatten(0, 1).float()[:, None].double() - before.double()).square().sum(-1)
    assert torch.equal(output.pixel_codes.flatten(0, 1)[:, 0], distances.argmin(1))
    assert all(buffer.dtype == torch.float32 for buffer in (book.embedding, book.cluster_size, book.vector_sum))


def test_the_loop_is_left_by_all_ranks_together(world, tmp_path):
    """SIGTERM at one rank: the others learn of it in the sum."""

    class Neighbour(World):
        def sum(self, tensor: Tensor) -> Tensor:
            return tensor + 1 if tensor.dtype == torch.int32 else tensor

        def gather(self, value: Any) -> list[Any]:
            return [value, value]

    config = tiny_config(world, out=str(tmp_path))
    run = train_tokenizer.Run(config.out, config)
    batches = train_tokenizer.open_batches(config.data, train_tokenizer.ImageTransform(16))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    loop = Loop(run, config.loop, config.schedule, {"optimizer": optimizer}, batches, "test", Neighbour(size=2))
    with pytest.raises(SystemExit) as stop:
        for _ in loop:
            pass
    assert stop.value.code == 143 and latest_checkpoint(run.checkpoints).name == "step-000001"
