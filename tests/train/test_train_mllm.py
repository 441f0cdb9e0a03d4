"""The stages of the unified model, end to end at miniature size: killed and resumed, continued, refused, measured.

Long because starting processes takes seconds: the stages of one script serve every question about them.
"""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from data.batch import Batch
from data.loader import Loader
from data.vocabulary import Vocabulary
from heads.config import DepthHeadConfig
from heads.sampling import SamplingConfig
from mllm.answer import answer
from mllm.config import LossWeights, UnifiedConfig, VisualSpec
from mllm.generate import generate_images
from mllm.loss import LossSums
from mllm.model import UnifiedModel
from mllm.pretrained import load_unified
from mllm.weights import WeightFiles
from tests.train.tiny_mllm import make_world, run_ranks, tiny_config, tiny_document
from tokenizer import Codebooks, DualCodes
from train import train_mllm
from train.checkpoint import checkpoint_step, latest_checkpoint, load_state
from train.config import load_config
from train.distributed import World
from train.export import export
from train.info import describe
from train.meter import LossMeter
from train.parameters import PartsOptimizerConfig, group_parameters
from train.run import Run, read_log
from train.spikes import MIN_STEPS
from train.train_mllm import TrainMllmConfig, main
from train.unigram import TargetCounts, count_targets, unigram_losses

STEPS, LOG_EVERY = 24, 5
CONFIGS = Path(__file__).parents[2] / "configs"


# --- killed and resumed -------------------------------------------------------------------------------------------


def launch(config: Path, *overrides: str) -> subprocess.Popen:
    """Two processes under torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = [*command, "-m", "train.train_mllm", str(config), *overrides]
    return subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(*runs: tuple[Path, list[str]]) -> None:
    """In each of two processes: what is left of one run after the other, and what is warned of."""
    logging.getLogger(train_mllm.__name__).addHandler(logging.FileHandler(runs[0][0].with_name("warnings.txt")))
    for config, overrides in runs:
        main(load_config(TrainMllmConfig, config, overrides))


def stop_after(process: subprocess.Popen, log: Path, step: int, number: signal.Signals) -> None:
    """Sends the signal to torchrun once the log has `step`, SIGKILL to its children as well."""
    import psutil

    while not any(line["step"] >= step for line in read_log(log)):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    family = [psutil.Process(process.pid)]
    family += family[0].children(recursive=True) if number == signal.SIGKILL else []
    for member in family:
        member.send_signal(number)
    process.wait(timeout=60)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, alone: Path) -> dict[str, Any]:
    """One run left alone; another stopped by SIGTERM, then by SIGKILL, then left to finish; what one process began."""
    folder = tmp_path_factory.mktemp("killed")
    make_world(folder)
    validation = {"sources": tiny_document(folder)["data"]["sources"][:2], "every": 7}
    samples = {"prompts": ["a red apple"], "every": 8, "sampling": {"temperature": 0.5}}
    loop = {"steps": STEPS, "log_every": LOG_EVERY, "checkpoint_every": 4, "save_in_background": True}
    looking = {"validation": validation, "samples": samples, "ema": {"decay": 0.5}}
    looking["spikes"] = {"loss": 0.1, "grad_norm": 0.0, "window": MIN_STEPS}  # every step, once so many were seen
    config = folder / "tiny.yaml"
    config.write_text(yaml.safe_dump(tiny_document(folder, loop=loop, **looking)))
    quiet, killed = folder / "quiet", folder / "killed"
    never = "loop.checkpoint_every=0"
    stop_after(launch(config, f"out={killed}", never), killed / "log.jsonl", LOG_EVERY, signal.SIGTERM)
    checkpoint, logged = latest_checkpoint(killed / "checkpoints"), read_log(killed / "log.jsonl")[-1]["step"]
    stop_after(launch(config, f"out={killed}"), killed / "log.jsonl", logged + LOG_EVERY, signal.SIGKILL)
    assert not (killed / "result.json").exists()
    half_way(alone / "one", alone / "two")
    changes = ["engine.accumulation=2", "loop.allow_changes=[engine.accumulation]"]
    runs = [[f"out={killed}"], [f"out={quiet}", "loop.save_in_background=false"]]
    run_ranks(finish, 2, *((config, run) for run in runs), (alone / "one.yaml", [f"out={alone / 'two'}", *changes]))
    saved = checkpoint_step(checkpoint)
    return {"quiet": quiet, "killed": killed, "config": config, "saved": saved, "logged": logged}


def half_way(run: Path, copy: Path) -> None:
    """As a run would be that was killed after its first checkpoint."""
    shutil.copytree(run, copy)
    shutil.rmtree(latest_checkpoint(copy / "checkpoints"))
    shutil.rmtree(copy / "export")
    (copy / "result.json").unlink()


def test_two_processes_go_on_where_one_stopped(killed, alone):
    """With half as many micro-batches each, as the config says; all else is the same, up to the order of sums."""
    one, two = (read_log(alone / name / "log.jsonl") for name in ("one", "two"))
    assert [line["step"] for line in one] == [line["step"] for line in two] == list(range(1, 9))
    for ours, theirs in zip(two[4:], one[4:], strict=True):
        for name in ("loss", "text.loss", "pixel.loss", "grad_norm"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4)
        places = [name for name in ours if name.startswith(("data.share", "data.epoch", "data.num"))]
        assert len(places) > 4 and all(ours[name] == theirs[name] for name in places)


def test_sigterm_saves_the_step_it_reached(killed):
    assert killed["logged"] <= killed["saved"] < killed["logged"] + LOG_EVERY


def test_a_run_that_was_killed_ends_with_the_same_weights_bit_for_bit(killed):
    quiet, resumed = (load_file(killed[name] / "export" / "model.safetensors") for name in ("quiet", "killed"))
    assert quiet.keys() == resumed.keys()
    assert [name for name in quiet if not torch.equal(quiet[name], resumed[name])] == []


def test_a_checkpoint_of_two_processes_is_exported_as_the_run_itself_is(killed, tmp_path):
    """Weights in pieces of two ranks, and the average of them, which this run exports."""
    run = killed["quiet"]
    out = export(str(latest_checkpoint(run / "checkpoints")), str(tmp_path / "out"), max_shard_size="20KB")
    expected, found = WeightFiles(run / "export"), WeightFiles(out)
    assert set(expected) == set(found) and len(list(out.glob("model-*.safetensors"))) > 1
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    assert f"{STEPS} steps" in (out / "README.md").read_text()
    assert load_unified(out).model.config == load_unified(run / "export").model.config


def test_ranks_drop_out_different_places(killed):
    files = sorted(latest_checkpoint(killed["quiet"] / "checkpoints").glob("rng-*.pt"))
    first, second = (load_state(file)["torch"] for file in files)
    assert not torch.equal(first, second)


def test_its_log_result_and_pictures_are_the_same_too(killed):
    clocks = ("seconds", "step_seconds", "tokens_per_second", "images_per_second", "mfu", "peak_memory_gb")

    def without_clocks(line: dict) -> dict:
        return {n: value for n, value in line.items() if n not in clocks and not n.startswith("data.wait")}

    quiet, resumed = ([without_clocks(line) for line in read_log(killed[n] / "log.jsonl")] for n in ("quiet", "killed"))
    assert quiet == resumed
    logged = [line["step"] for line in quiet if "grad_norm" in line]
    assert logged == [*range(LOG_EVERY, STEPS, LOG_EVERY), STEPS]
    results = [json.loads((killed[name] / "result.json").read_text()) for name in ("quiet", "killed")]
    assert without_clocks(results[0]) == without_clocks(results[1])
    pictures = [{p.name: p.read_bytes() for p in (killed[n] / "samples").iterdir()} for n in ("quiet", "killed")]
    assert pictures[0] == pictures[1] and len(pictures[0]) == STEPS // 8


def test_a_spike_is_logged_with_the_documents_of_both_ranks_and_warned_of_once(killed):
    config, vocabulary = load_config(TrainMllmConfig, killed["config"]), killed["quiet"] / "vocabulary"
    loaders = [Loader(config.data, Vocabulary.from_pretrained(vocabulary), None, rank, 2, 2) for rank in (0, 1)]
    steps = list(zip(*(islice(loader, STEPS) for loader in loaders), strict=True))[MIN_STEPS:]
    keys = [[key for data in ranks for batch in data.micro_batches for key in batch.keys] for ranks in steps]
    spikes = [line for line in read_log(killed["quiet"] / "log.jsonl") if "spike" in line]
    assert {line["step"]: line["spike"] for line in spikes} == {
        step: ", ".join(own) for step, own in enumerate(keys, MIN_STEPS + 1)
    }
    assert all(line["spike.loss"] > 0.1 * line["spike.loss_median"] > 0 for line in spikes)
    assert json.loads((killed["quiet"] / "result.json").read_text())["spikes"] == len(spikes) == STEPS - MIN_STEPS
    warnings = killed["config"].with_name("warnings.txt").read_text()
    for step, own in enumerate(keys, MIN_STEPS + 1):  # by the main rank alone, in each of two runs
        assert warnings.count(f"step {step}: loss ") == warnings.count(f": {', '.join(own[:5])}\n") in (1, 2)


def test_the_result_names_its_figures(killed):
    result = json.loads((killed["quiet"] / "result.json").read_text())
    assert result["step"] == STEPS and result["skipped"] == 0 and result["seconds"] > 0
    assert result["ntp"].keys() == {"text", "pixel", "semantic"}
    for figures in result["ntp"].values():
        assert figures["ratio_to_unigram"] == pytest.approx(figures["loss"] / figures["unigram"])


def test_the_log_tells_modalities_codebooks_and_depths_apart(killed):
    line = read_log(killed["quiet"] / "log.jsonl")[0]
    expected = {"loss", "text.loss", "pixel.loss", "semantic.depth3.accuracy", "grad_norm", "lr.heads", "data.fill"}
    assert expected <= line.keys()
    parts = [line[f"grad_norm.{part}"] for part in ("llm", "projector", "heads")]
    assert line["grad_norm"] == pytest.approx(sum(norm**2 for norm in parts) ** 0.5)
    assert 0 < line["mfu"] < 1 and line["peak_memory_gb"] > 0.1 and 0 <= line["data.wait_share"] < 1
    assert line["pixel.loss"] == pytest.approx(sum(line[f"pixel.depth{d}.loss"] for d in (1, 2, 3)) / 3)


# --- one process: continued, finished, refused --------------------------------------------------------------------


def one_process(folder: Path) -> None:
    train_mllm.MAX_BAD_STEPS = 2
    config = tiny_config(folder)
    main(config)
    weights = (folder / "run" / "export" / "model.safetensors").read_bytes()
    main(config)  # finished: nothing happens
    assert (folder / "run" / "export" / "model.safetensors").read_bytes() == weights
    main(load_config(TrainMllmConfig, folder / "one.yaml"))
    document = tiny_document(folder, out=str(folder / "next"), init=str(folder / "run" / "export"), tokenizer=None)
    del document["model"]
    weighed = {"loss_weights": {"text": 2.0}, "visual_dropout": 0.5}
    weighed |= {"llm": {"gradient_checkpointing": True}, "heads": {"gradient_checkpointing": True}}
    main(replace(config, loop=replace(config.loop, steps=8)))  # the finished run goes on
    main(tiny_config(folder, **{**document, "model": weighed, "trainable": ["heads"]}))
    adapted = {**document, "trainable": ["lora", "projector"], "optimizer": {"learning_rate": 0.02}}
    for name, merge in (("merged", True), ("apart", False)):
        main(tiny_config(folder, **{**adapted, "out": f"{folder}/{name}", "lora": {"rank": 2, "merge": merge}}))
    later = {**document, "out": f"{folder}/after", "init": f"{folder}/apart/export", "trainable": ["heads"]}
    main(tiny_config(folder, **later))
    main(reading_config(folder))
    drawing = reading_config(folder, out=f"{folder}/drawing", data=tiny_document(folder)["data"])
    broken = replace(config, out=str(folder / "broken"), optimizer=replace(config.optimizer, learning_rate=1e30))
    mistakes = []
    for wrong in (
        broken,
        replace(config, schedule=replace(config.schedule, warmup=3)),
        tiny_config(folder, **{**document, "out": f"{folder}/resized", "model": {"heads": {"num_layers": 2}}}),
        tiny_config(folder, **{**document, "out": f"{folder}/no-model", "init": str(folder / "codes")}),
        drawing,
        reading_config(folder, out=f"{folder}/samples", samples={"prompts": ["an apple"], "every": 2}),
        reading_config(folder, out=f"{folder}/headless", trainable=["projector", "heads"]),
        tiny_config(folder, out=f"{folder}/watch", validation={"sources": [{"kind": "draw", "codes": "nowhere"}]}),
        tiny_config(folder, out=f"{folder}/watch", samples={"prompts": ["a"], "every": 9, "sampling": {"top_k": [1]}}),
        tiny_config(folder, out=f"{folder}/watch", samples={"every": 9}),
    ):
        try:
            main(wrong)
        except (ValueError, OSError) as error:
            mistakes.append(str(error))
    (folder / "mistakes.json").write_text(json.dumps(mistakes))


def reading_config(folder: Path, **changes: Any) -> TrainMllmConfig:
    """The controlled experiment of LLaVA-1.5 (configs/full/llava_align.yaml): understanding alone, no heads."""
    document = tiny_document(folder)
    sources = [source for source in document["data"]["sources"] if source["kind"] != "draw"]
    reading = {
        "out": str(folder / "reading"),
        "model": {"llm": document["model"]["llm"], "heads": None, "visual_input": "semantic"},
        "data": {**document["data"], "sources": sources},
        "validation": {"sources": sources, "num_documents": 4},
        "trainable": ["projector"],
    }
    return tiny_config(folder, **{**reading, **changes})


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    make_world(folder)
    one = tiny_document(folder, out=str(folder / "one"))
    one["engine"]["accumulation"] = 4
    one["loop"] |= {"steps": 8, "checkpoint_every": 4}
    (folder / "one.yaml").write_text(yaml.safe_dump(one))
    run_ranks(one_process, 1, folder)
    return folder


def test_a_stage_continues_from_the_export_of_another(alone):
    before, after = (load_unified(alone / name / "export") for name in ("run", "next"))
    pairs = zip(before.model.named_parameters(), after.model.parameters(), strict=True)
    changed = {name.split(".")[0] for (name, old), new in pairs if not torch.equal(old, new)}
    assert changed == {"pixel_head", "semantic_head"}
    assert after.model.config.loss_weights == LossWeights(text=2.0)
    assert after.tokenizer.tokenizer_id == before.tokenizer.tokenizer_id
    assert len(after.vocabulary) == len(before.vocabulary)


def test_what_a_stage_does_not_train_is_exported_from_where_it_began(alone, tmp_path):
    run = alone / "next"
    out = export(str(latest_checkpoint(run / "checkpoints")), str(tmp_path / "out"))
    assert (out / "model.safetensors").read_bytes() == (run / "export/model.safetensors").read_bytes()
    assert load_unified(out).model.config == load_unified(run / "export").model.config
    card = (out / "README.md").read_text()
    assert card.index("**run**: 8 steps") < card.index("**next**: 6 steps") and "heads trained" in card


def test_more_steps_extend_a_finished_run(alone):
    assert Run(alone / "run", tiny_config(alone), is_main=False).result["step"] == 8
    assert [line["step"] for line in read_log(alone / "run" / "log.jsonl")] == list(range(1, 9))


def test_mistakes_are_told_in_one_sentence(alone):
    mistakes = json.loads((alone / "mistakes.json").read_text())
    diverged, changed, resized, no_model, drawing, samples, headless, held_out, depths, no_prompt = mistakes
    assert "not finite for" in diverged and "image-" in diverged
    assert "schedule.warmup: 2.0 → 3" in changed
    assert "init=" in resized and "remove all of model but" in resized
    assert "config.json is missing" in no_model
    assert "the model has no heads" in drawing and "samples.every=0" in samples
    assert "trainable names heads, of which this model has none" in headless
    assert "nowhere" in held_out and "top_k" in depths and "a caption to draw is empty" in no_prompt
    assert all("\n" not in mistake for mistake in mistakes)


def test_adapters_are_merged_into_the_export_or_lie_beside_it(alone):
    weights = {name: load_file(alone / name / "export" / "model.safetensors") for name in ("run", "merged", "apart")}
    before, merged, apart = weights["run"], weights["merged"], weights["apart"]
    assert before.keys() == merged.keys() == apart.keys()
    changed = [name for name in before if not torch.equal(before[name], apart[name])]
    assert changed and all(name.startswith("visual_embedding.") for name in changed)
    adapted = [name for name in before if not torch.equal(merged[name], apart[name])]
    assert len(adapted) == 2 * 7 and all(name.startswith("llm.model.layers.") for name in adapted)
    loaded = [load_unified(alone / name / "export").model.state_dict() for name in ("merged", "apart")]
    assert all(torch.equal(loaded[0][name], loaded[1][name]) for name in before)
    assert "lr.lora" in read_log(alone / "merged" / "log.jsonl")[0]
    after = load_file(alone / "after" / "export" / "model.safetensors")  # a later stage, which read it into partitions
    assert all(torch.equal(after[name], merged[name]) for name in before if name.startswith("llm."))


def test_what_has_adapters_is_exported_merged(alone, tmp_path):
    expected = load_file(alone / "merged" / "export" / "model.safetensors")
    after = load_file(alone / "after" / "export" / "model.safetensors")  # of a stage that began from an adapter apart
    checkpoints = {name: str(latest_checkpoint(alone / name / "checkpoints")) for name in ("merged", "apart", "after")}
    for name, source in {**checkpoints, "bare": str(alone / "apart")}.items():
        export(source, str(tmp_path / name))
        exported, own = load_file(tmp_path / name / "model.safetensors"), after if name == "after" else expected
        assert exported.keys() == own.keys() and all(torch.equal(exported[n], own[n]) for n in own), name


def test_lora_is_named_where_it_is_meant(tmp_path):
    with pytest.raises(ValueError, match="names both llm and lora"):
        tiny_config(tmp_path, trainable=["llm", "lora"])
    with pytest.raises(ValueError, match="does not name lora"):
        tiny_config(tmp_path, lora={"rank": 2})


def test_a_model_without_heads_reads_and_does_not_draw(alone):
    unified = load_unified(alone / "reading" / "export")
    assert {name.split(".")[0] for name, _ in unified.model.named_parameters()} == {"llm", "visual_embedding"}
    line = read_log(alone / "reading" / "log.jsonl")[-1]
    assert line["loss"] == pytest.approx(line["text.loss"])
    assert not any(name.startswith(("pixel", "semantic")) for name in line)
    result = json.loads((alone / "reading" / "result.json").read_text())
    assert result["ntp"].keys() == {"text"}
    assert "visual_embedding" in describe(str(alone / "reading" / "export"), [])
    codes = DualCodes(*torch.zeros(2, 4, 3, dtype=torch.int64))
    assert isinstance(answer(unified.model, unified.vocabulary, ["Is it?"], [codes], 3)[0], str)
    with pytest.raises(ValueError, match="it reads images and cannot draw"):
        generate_images(unified.model, unified.vocabulary, ["an apple"], SamplingConfig(), [0])


def test_a_start_is_needed_and_one_only(tmp_path):
    with pytest.raises(ValueError, match="neither init nor tokenizer"):
        tiny_config(tmp_path, tokenizer=None)
    with pytest.raises(ValueError, match="remove these two keys"):
        tiny_config(tmp_path, init="runs/other/export")


# --- measuring ----------------------------------------------------------------------------------------------------


def test_the_meter_gives_means_per_token_and_per_code():
    def sums(text: float, num_text: int, pixel: list[float], num_visual: int) -> LossSums:
        losses, correct = torch.tensor(pixel), torch.tensor([1, 0])
        parts = (torch.tensor(text), torch.tensor(num_text), torch.tensor(1))
        visual = (losses, 2 * losses, torch.tensor(num_visual), correct, correct)
        return LossSums(*parts, *visual, 10 * losses, 20 * losses)

    meter = LossMeter(World(), LossWeights(text=1, pixel=1, semantic=0.5, z_loss=0.01))
    meter.add(sums(6.0, 3, [4.0, 8.0], 2))
    meter.add(sums(2.0, 1, [2.0, 6.0], 3))
    means = meter.means()
    assert means["text.loss"] == 2.0 and means["text.accuracy"] == 0.5
    assert means["pixel.depth1.loss"] == pytest.approx(6 / 5) and means["pixel.depth2.loss"] == pytest.approx(14 / 5)
    assert means["pixel.loss"] == pytest.approx(2.0) and means["semantic.loss"] == pytest.approx(4.0)
    assert means["pixel.depth1.accuracy"] == pytest.approx(2 / 5)
    assert means["pixel.z"] == pytest.approx(20.0) and means["semantic.z"] == pytest.approx(40.0)
    assert means["loss"] == pytest.approx((8 + 1.1 * 20 + 0.5 * 1.1 * 40) / 9)
    assert meter.means() == {}


def test_the_unigram_is_the_cross_entropy_under_smoothed_training_frequencies():
    def counts(text: list[int], pixel: list[list[int]]) -> TargetCounts:
        return TargetCounts(torch.tensor([text]), torch.tensor(pixel), torch.tensor(pixel))

    training = counts([3, 0, 5], [[1, 1], [0, 6]])  # smoothed: 4/11 1/11 6/11; 1/2 1/2; 1/8 7/8
    held_out = counts([1, 1, 0], [[2, 5], [1, 0]])
    losses = unigram_losses(training, held_out)
    log = torch.tensor([4 / 11, 1 / 11, 1 / 2, 1 / 8], dtype=torch.float64).log()
    assert losses["text"] == [pytest.approx(-(log[0] + log[1]).item() / 2)]
    assert losses["pixel"] == [pytest.approx(-log[2].item()), pytest.approx(-log[3].item())]
    assert unigram_losses(training, counts([1, 0, 0], [[0, 0], [0, 0]]))["pixel"] == []


def test_only_targets_are_counted():
    codes = torch.tensor([[[0], [1]], [[2], [2]]])  # two images of two positions, D = 1; the second is to be drawn
    image = torch.tensor([[True, True, False, True, True, False]])
    target = torch.tensor([[False, False, False, True, True, False]])
    labels = torch.tensor([[-100, -100, -100, -100, -100, 4]])
    ids = torch.zeros(1, 6, dtype=torch.int64)
    batch = Batch(codes, codes, ids, ids, labels, image, target, ["k"])
    counts = count_targets([batch, batch], 5, 1, 3, World())
    assert counts.text.tolist() == [[0, 0, 0, 0, 2]]
    assert counts.pixel.tolist() == counts.semantic.tolist() == [[0, 0, 4]]


# --- shipped configs ----------------------------------------------------------------------------------------------


def on_meta(config: UnifiedConfig, visual: VisualSpec, vocab_size: int) -> UnifiedModel:
    codebooks = torch.zeros(1, visual.codebook_size, visual.code_dim)
    with torch.device("meta"):
        own_sizes = replace(config, llm=replace(config.llm, path=None))  # the defaults are those of Qwen2.5-3B
        return UnifiedModel(own_sizes, visual, vocab_size, Codebooks(codebooks, codebooks))


@pytest.mark.parametrize("name", ["full/align", "full/pretrain", "full/instruct", "tiny/pretrain", "tiny/instruct"])
def test_shipped_configs_resolve_and_say_what_they_are(name):
    path = CONFIGS / f"{name}.yaml"
    config = load_config(TrainMllmConfig, path)
    assert path.read_text().startswith("#") and "dualtoken train" in path.read_text()
    model = torch.nn.ModuleDict({part: torch.nn.Linear(2, 2) for part in ("llm", "visual_embedding", "pixel_head")})
    assert {g.part for g in group_parameters(model, config.trainable, config.optimizer)} == set(config.trainable)


def test_the_full_model_has_the_paper_s_sizes():
    config = load_config(TrainMllmConfig, CONFIGS / "full/align.yaml")
    model = on_meta(config.model, VisualSpec((27, 27), 8, 16384, 32, "full"), 151936)
    assert sum(p.numel() for p in model.llm.parameters()) == 3_085_938_688  # Qwen2.5-3B
    assert config.model.heads.num_layers == 3
    assert model.pixel_head.classifiers.weight.shape[:2] == (8, 16384)


def test_parts_have_their_own_rates_and_vectors_do_not_decay():
    model = on_meta(UnifiedConfig(heads=DepthHeadConfig(1, 16, 2, 32)), VisualSpec((2, 2), 3, 8, 4, "x"), 400)
    config = PartsOptimizerConfig(learning_rate=1.0, heads_learning_rate=3.0, weight_decay=0.1)
    groups = group_parameters(model, ["llm", "heads"], config)
    assert {(g.part, g.learning_rate, g.weight_decay) for g in groups} == {
        ("llm", 1.0, 0.1), ("llm", 1.0, 0.0), ("heads", 3.0, 0.1), ("heads", 3.0, 0.0),
    }  # fmt: skip
    assert all((p.ndim >= 2) == (g.weight_decay > 0) for g in groups for p in g.parameters)
    assert not any(p.requires_grad for p in model.visual_embedding.parameters())
    assert sum(len(g.parameters) for g in groups) == sum(p.requires_grad for p in model.parameters())
    with pytest.raises(ValueError, match="trainable"):
        group_parameters(model, ["lm"], config)
