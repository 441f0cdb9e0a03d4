"""The report: every figure comes from a file, the page stands alone, and what is absent is said to be absent."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from train.report import write_report
from train.report_data import collect_metrics, read_run
from train.report_plots import Curve, draw_curves

VOID = {"img", "meta", "br", "path", "rect", "use"}
EVALUATION = {
    "reconstruction": {"psnr": 23.75, "ssim": 0.8125, "images": 190},
    "codebook_usage": {"pixel": 0.96, "semantic": 0.84},
    "codebook_perplexity": {"pixel": 612.0, "semantic": 355.0},
    "zero_shot": {
        "quantized": 0.41,
        "tower": 0.44,
        "ratio_to_tower": 0.93,
        "chance": 0.01,
        "classes": 97,
        "images": 190,
    },
    "retrieval": {
        "quantized": {"text_to_image": 0.11, "image_to_text": 0.12},
        "tower": {"text_to_image": 0.13, "image_to_text": 0.14},
        "chance": 0.005,
    },
}
NTP = {part: {"loss": 3.5, "unigram": 5.0, "ratio_to_unigram": 0.7} for part in ("text", "pixel", "semantic")}
GENERATION = {
    "prompts": 100,
    "chance": {"retrieval_at_1": 0.01, "style_accuracy": 0.5},
    "original": {"retrieval_at_1": 0.6, "retrieval_over_chance": 60.0, "style_accuracy": 0.99},
    "cfg1": {"retrieval_at_1": 0.04, "retrieval_over_chance": 4.0, "style_accuracy": 0.81},
    "cfg3": {"retrieval_at_1": 0.09, "retrieval_over_chance": 9.0, "style_accuracy": 0.92},
}
SCORES = {
    "split": "unseen_style",
    "partial": False,
    "limit": None,
    "tasks": {
        "vqav2": {
            "num_questions": 1234,
            "headline": "overall",
            "model": {"overall": 61.23},
            "chance": {"overall": 11.5},
            "constant": {"answer": "yes", "overall": 12.5},
            "ceiling": {"overall": 100.0},
        },
        "pope": {"num_questions": 600, "headline": "mean_f1", "model": {"not_scored": "no public answers"}},
    },
    "yes_no_accuracy": 0.743,
    "yes_no_chance": 0.55,
    "num_yes_no_questions": 800,
}
EXAMPLES = [
    {
        "benchmark": "vqav2",
        "question": "What <b>is</b> this?",
        "prediction": "apple",
        "reference": "apple",
        "right": True,
    },
    {"benchmark": "mme", "question": "Is it red?", "prediction": "", "reference": "Yes & no", "right": False},
]
STAGES = {
    "machine": {"processor": "A Processor", "cores": 2, "memory_gb": 16.0, "system": "Linux"},
    "seconds": 754.0,
    "peak_memory_gb": 5.25,
    "stages": [
        {"name": "tower", "command": ["x"], "exit_code": 0, "seconds": 154.0, "peak_memory_gb": 2.0},
        {"name": "pretrain", "command": ["y"], "exit_code": 0, "seconds": 600.0, "peak_memory_gb": 5.25},
    ],
}


def write_stage(
    folder: Path, result: dict | None = None, log: list[dict] | None = None, pictures: tuple[str, ...] = ()
) -> None:
    (folder / "samples").mkdir(parents=True)
    (folder / "config.yaml").write_text("out: runs/x  # <here>\n")
    if result is not None:
        (folder / "result.json").write_text(json.dumps(result))
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log or []))
    for name in pictures:
        Image.new("RGB", (8, 8), "red").save(folder / "samples" / f"{name}.png")


@pytest.fixture
def run(tmp_path) -> Path:
    """A complete run folder of small size."""
    folder = tmp_path / "demo"
    losses = {"loss": 9.0, "text.loss": 2.0, "pixel.loss": 4.0, "pixel.depth1.loss": 4.5, "pixel.depth2.loss": 3.5}
    steps = [{"step": i, "seconds": i, **losses} for i in (1, 2, 3)]
    write_stage(folder / "tower", {"parameters": 1000, "seconds": 150.0}, steps)
    write_stage(
        folder / "tokenizer", {"parameters": 2000}, [{"step": 1, "seconds": 1, "loss": 1.0, "pixel_usage": 0.5}]
    )
    write_stage(folder / "tokenizer-eval", EVALUATION, pictures=("reconstructions",))
    write_stage(folder / "pretrain", {"ntp": NTP}, [*steps, {"step": 3, "seconds": 3, "validation.pixel.loss": 4.1}])
    better = {"ntp": {**NTP, "text": {"loss": 1.0, "unigram": 5.0, "ratio_to_unigram": 0.2}}}
    write_stage(folder / "instruct", better, [{"step": 1, "seconds": 1, "loss": None}])
    write_stage(folder / "generation", GENERATION, pictures=("cfg1", "cfg3"))
    evaluation = folder / "eval" / "unseen_style"
    (evaluation / "examples").mkdir(parents=True)
    (evaluation / "config.yaml").write_text("limit: 17\n")
    (folder / "pipeline.yaml").write_text("stages: [of the pipeline]\n")
    (evaluation / "scores.json").write_text(json.dumps(SCORES))
    for i, example in enumerate(EXAMPLES):
        Image.new("RGB", (8, 8), "blue").save(evaluation / f"examples/{i}.png")
        example["image"] = f"examples/{i}.png"
    (evaluation / "examples.json").write_text(json.dumps(EXAMPLES))
    (folder / "stages.json").write_text(json.dumps(STAGES))
    return folder


class Checker(HTMLParser):
    """Collects the text and every address, and checks that elements close in order."""

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.text, self.addresses, self.tags = "", [], set()
        self.feed(page)
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += f"{data} "


def test_metrics_have_the_promised_names(run):
    write_report(run)
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["reconstruction"]["psnr"] == 23.75 and metrics["reconstruction"]["ssim"] == 0.8125
    assert metrics["codebook_usage"] == {"pixel": 0.96, "semantic": 0.84}
    assert set(metrics["zero_shot"]) >= {"quantized", "tower", "ratio_to_tower", "chance"}
    assert metrics["ntp"]["text"] == {"loss": 1.0, "unigram": 5.0, "ratio_to_unigram": 0.2}  # the last stage's
    assert metrics["ntp"]["pixel"]["ratio_to_unigram"] == 0.7
    for name, expected in (("cfg1", GENERATION["cfg1"]), ("cfg3", GENERATION["cfg3"])):
        assert metrics["generation"][name] == expected
    assert metrics["yes_no"] == {"unseen_style_accuracy": 0.743, "unseen_style_constant_answer": 0.55}
    assert metrics["seconds"] == {"total": 754.0, "tower": 154.0, "pretrain": 600.0}
    assert metrics["parameters"] == {"tower": 1000, "tokenizer": 2000}
    assert metrics["scores"]["unseen_style"]["vqav2"]["ceiling"] == {"overall": 100.0}


def test_page_stands_alone(run):
    page = write_report(run).read_text()
    checker = Checker(page)
    assert checker.addresses and all(re.match(r"(data:image/png;base64,|#)", address) for address in checker.addresses)
    assert not checker.tags & {"script", "link", "iframe"}
    assert "http" not in page.replace("http-equiv", "") and "@import" not in page and "url(http" not in page
    assert page.count("data:image/png") == 1 + 2 + 2  # reconstructions, two sheets, two examples
    assert {f"#{name}" for name in ("drawing", "answering", "scores", "tokenizer", "model", "times")} <= set(
        checker.addresses
    )


def test_page_shows_the_figures_beside_what_they_are_compared_with(run):
    text = " ".join(Checker(write_report(run).read_text()).text.split())
    for shown in (
        "23.8 dB Reconstruction of unseen concepts SSIM 0.812",
        "96% of entries Pixel codebook in use semantic 84%",
        "93% of the tower’s Zero-shot accuracy from codes 41.0%, tower 44.0%, chance 1.0%",
        "0.70 × unigram Loss on the next pixel code, held out semantic codes 0.70, text 0.20",
        "9.0 × chance Captions found from drawn images without guidance 4.0 ×",
        "92% Drawn in the style asked for chance 50%",
        "74% right Yes/no questions, unseen style constant answer 55%",
    ):
        assert shown in text, shown
    assert "retrieval R@1, text to image 0.110 0.130 0.005" in text
    assert "eval/unseen_style/config.yaml limit: 17" in text and "pipeline.yaml stages: [of the pipeline]" in text
    assert "VQAv2 accuracy 1,234 61.2 11.5 12.5 100.0" in text
    assert "POPE mean F1 600 – – – –" in text
    assert "All yes/no accuracy 800 0.743 0.500 0.550 1.000" in text
    assert "unigram" in text and "0.200" in text
    assert "10:00 min" in text and "12:34 min" in text and "A Processor, 2 cores" in text


def test_text_from_outside_is_escaped(run):
    page = write_report(run).read_text()
    assert "What &lt;b&gt;is&lt;/b&gt; this?" in page and "<b>is</b>" not in page
    assert "# &lt;here&gt;" in page
    assert "expected: Yes &amp; no" in page and "✗ (nothing)" in page


def test_missing_parts_say_which_command_makes_them(run):
    import shutil

    for name in ("generation", "tokenizer-eval", "instruct", "eval"):
        shutil.rmtree(run / name)
    page = write_report(run).read_text()
    text = " ".join(Checker(page).text.split())
    for command in (
        "dualtoken eval-generation",
        "dualtoken eval-tokenizer",
        "dualtoken train configs/tiny/instruct.yaml",
        "dualtoken evaluate --split unseen_style",
        "dualtoken evaluate --split unseen_concept",
    ):
        assert command in text
    metrics = json.loads((run / "metrics.json").read_text())
    assert not {"generation", "reconstruction", "zero_shot", "scores", "yes_no"} & set(metrics)
    assert metrics["ntp"]["text"]["loss"] == 3.5  # now pretraining's


def test_times_without_a_pipeline_are_those_of_the_stages(run):
    (run / "stages.json").unlink()
    assert collect_metrics(read_run(run))["seconds"] == {"total": 150.0, "tower": 150.0}


def test_single_stage(run):
    page = write_report(run / "pretrain").read_text()
    assert json.loads((run / "pretrain" / "metrics.json").read_text())["ntp"] == NTP
    assert page.count("<svg") == 4  # loss, text, pixel, pixel by depth; and no chart that the log has no metric for
    Checker(page)


@pytest.mark.parametrize("content", [None, "config.yml"])
def test_a_folder_without_a_run(tmp_path, content):
    if content:
        (tmp_path / content).write_text("x")
    with pytest.raises(ValueError, match="holds no run"):
        write_report(tmp_path)


def test_broken_result_is_named(run):
    (run / "tower" / "result.json").write_text('{"parameters": ')
    with pytest.raises(ValueError, match=r"tower/result\.json is not JSON"):
        write_report(run)


def test_the_page_is_reproducible(run):
    assert write_report(run).read_text() == write_report(run).read_text()


def test_chart_takes_its_colours_from_the_page():
    curves = [Curve(f"depth {d}", [1, 2, 3], [3.0, 2.0, 1.0 + d]) for d in range(3)]
    svg = draw_curves(curves, ordered=True, lines={"unigram": 2.5})
    assert not re.findall(r"#[0-9a-f]{6}", svg)
    assert all(f"var(--depth-{d})" in svg for d in range(3))
    assert all(f">{label}</text>" in svg for label in ("depth 0", "depth 2", "unigram", "step"))
    style = Path(read_run.__code__.co_filename).with_name("report.css").read_text()
    assert all(f"{name}:" in style for name in set(re.findall(r"var\((--[\w-]+)\)", svg)))


def test_chart_of_a_long_noisy_curve_has_its_average_in_front():
    values = [1.0 + (-1) ** i for i in range(400)]
    svg = draw_curves([Curve("loss", list(range(400)), values)])
    faint, line = re.findall(r'<path d="([^"]+)" clip-path[^>]*style="fill: none; stroke: var\(--series-0\)', svg)

    def spread(path: str) -> float:
        heights = [float(y) for y in re.findall(r"[ML] [\d.]+ ([\d.]+)", path)][50:]
        return max(heights) - min(heights)

    assert spread(line) < 0.3 * spread(faint)
