"""The whole chain at miniature size, by the commands a user types: from pictures to a page with scores.

Everything is real but small: shipped pictures, the tiny configs with less of everything, ZeRO-3 (in one process here;
two processes are tested in tests/train).
"""

import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image

import dualtoken
from data.emoji_benchmarks import build as build_benchmarks

ROOT = Path(__file__).parents[1]
TINY = ROOT / "configs/tiny"
NUM_PICTURES = 40  # of each split
SIZES = "{hidden_size: 16, intermediate_size: 32, num_hidden_layers: 3, num_attention_heads: 2}"
QUANTIZER = "{code_dim: 4, codebook_size: 16, depth: 2}"


def shrink(source: Path, target: Path) -> None:
    """Some pictures of a shard, evenly spaced."""
    with tarfile.open(source) as full, tarfile.open(target, "w:gz") as small:
        members = full.getmembers()  # two for each picture
        stride = len(members) // 2 // NUM_PICTURES
        for i in range(NUM_PICTURES):
            for member in members[2 * i * stride : 2 * i * stride + 2]:
                small.addfile(member, full.extractfile(member))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Runs every stage once; the tests look at what it left."""
    out = tmp_path_factory.mktemp("chain")
    shards = out / "shards"
    shards.mkdir()
    for split in ("train", "unseen_style", "unseen_concept"):
        shrink(ROOT / f"assets/emoji/{split}-000000.tar.gz", shards / f"{split}-000000.tar.gz")
    train, held_out = f"{shards}/train-*.tar.gz", f"{shards}/unseen_concept-*.tar.gz"
    run(
        "train-tower", "tower", f"out={out}/tower", f"data.shards={train}", f"validation={held_out}", "loop.steps=2",
        "data.batch_size=8", "patch_size=16", "vocabulary_size=120", f"vision={SIZES}", f"text={SIZES}",
    )  # fmt: skip
    run(
        "train-tokenizer", "tokenizer", f"out={out}/tokenizer", f"tokenizer.tower={out}/tower/export", "loop.steps=2",
        f"data.shards={train}", f"validation={held_out}", "data.batch_size=8", "sample_every=2",
        "tokenizer.pixel_layer=1", "tokenizer.semantic_layer=2", f"tokenizer.pixel={QUANTIZER}",
        f"tokenizer.semantic={QUANTIZER}", "tokenizer.decoder.in_channels=8", "tokenizer.decoder.base_channels=4",
    )  # fmt: skip
    parts = (f"tokenizer={out}/tokenizer/export", f"tower={out}/tower/export")
    pictures = (f"classes={train}", f"images={held_out}")
    run("eval-tokenizer", "tokenizer_eval", f"out={out}/tokenizer-eval", *parts, *pictures)
    for split in ("train", "unseen_style", "unseen_concept"):
        source = f"source={shards}/{split}-*.tar.gz"
        run("pretokenize", "pretokenize", parts[0], source, f"out={out}/codes/{split}")
    build_benchmarks(shards, out / "benchmarks", 4, 0)
    small = (
        "loop.steps=2", "loop.log_every=1", "loop.checkpoint_every=2", "validation.every=0",
        "validation.num_documents=4", "samples.every=2", "data.rows_per_batch=2",
    )  # fmt: skip
    llm = (
        "model.llm={hidden_size: 32, intermediate_size: 64, "
        "num_hidden_layers: 2, num_attention_heads: 2, num_key_value_heads: 1}"
    )
    heads = "model.heads={num_layers: 1, width: 16, num_heads: 2, mlp_width: 32}"
    run("train", "pretrain", f"out={out}/pretrain", "vocabulary_size=400", llm, heads, *small)
    run("train", "instruct", f"out={out}/instruct", *small)
    model = f"{out}/instruct/export"
    run(
        "eval-generation", "generation", f"out={out}/generation", f"model={model}", parts[1], f"images={train}",
        "num_prompts=4",
    )  # fmt: skip
    command(
        "evaluate", "--model", model, "--benchmarks", str(out / "benchmarks"), "--split", "unseen_concept",
        "--out", str(out / "eval/unseen_concept"), "--limit", "4", "--max-new-tokens", "4",
    )  # fmt: skip
    command("report", str(out))
    return out


def run(name: str, config: str, *overrides: str) -> None:
    command(name, str(TINY / f"{config}.yaml"), *overrides)


def command(*arguments: str) -> None:
    assert dualtoken.main(arguments) == 0, arguments


def test_every_stage_leaves_its_figures(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    assert 3 < metrics["reconstruction"]["psnr"] < 40
    assert 0 < metrics["codebook_usage"]["semantic"] <= 1
    assert metrics["retrieval"]["chance"] == 1 / NUM_PICTURES
    assert metrics["ntp"]["pixel"]["loss"] > 0 and metrics["ntp"]["text"]["unigram"] > 0
    assert 0 <= metrics["generation"]["cfg3"]["style_accuracy"] <= 1
    assert 0 <= metrics["yes_no"]["unseen_concept_accuracy"] <= 1
    page = (folder / "report.html").read_text()
    assert "data:image/png;base64" in page and "http://" not in page.replace("http://www.w3.org", "")


def test_the_model_draws_and_answers(folder, capsys):
    model = str(folder / "instruct/export")
    command("generate", "a red apple, 3d style", "--model", model, "--num", "2", "--out", str(folder / "apples"))
    pictures = sorted((folder / "apples").glob("a-red-apple*.png"))
    assert [Image.open(p).size for p in pictures] == [(64, 64)] * 2
    capsys.readouterr()
    command("chat", "--model", model, "--image", str(pictures[0]), "--max-new-tokens", "3", "What is this?")
    assert capsys.readouterr().out.endswith("\n")


def test_codes_of_another_tokenizer_are_refused(folder, capsys):
    provenance = folder / "codes/train/provenance.json"
    before = provenance.read_text()
    provenance.write_text(before.replace('"tokenizer_id": "', '"tokenizer_id": "0'))
    try:
        config = str(TINY / "pretrain.yaml")
        assert dualtoken.main(["train", config, f"out={folder}/other/../refused", "loop.steps=1"]) == 2
    finally:
        provenance.write_text(before)
    assert "pretokenize the images with the tokenizer in use" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", " "], "the prompt is empty"),
        (["generate", "an apple", "--model", "no/where"], "no/where"),
        (["reconstruct", "no-such.png", "--tokenizer", "{}/tokenizer/export"], "no-such.png"),
        (["train-tower", "configs/tiny/nothing.yaml"], "configs/tiny/nothing.yaml does not exist"),
        (["train-tower", f"{TINY}/tower.yaml", "loop.stps=1"], "did you mean 'steps'"),
        (["pretokenize", f"{TINY}/pretokenize.yaml", "tokenizer={}/tokenizer/export", "source=no/*.tar"], "no/*.tar"),
        (["report", "no/run"], "no/run"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(folder, capsys, arguments, message):
    capsys.readouterr()
    assert dualtoken.main([a.format(folder) for a in arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("dualtoken: error: ") and message in error and "Traceback" not in error
