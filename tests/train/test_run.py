"""The run folder: a log without repeats, JSON without NaN, results that are whole, silence on other ranks."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from PIL import Image

from train.config import load_config
from train.resume import refuse_changed_config, refuse_other_result
from train.run import Run, TrackingConfig, read_log
from train.schedule import ScheduleConfig, lr_multiplier


@dataclass(frozen=True)
class Loop:
    steps: int = 10
    allow_changes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Config:
    out: str = "somewhere"
    rate: float = 0.5
    names: list[str] | None = None
    schedule: ScheduleConfig = ScheduleConfig()
    loop: Loop = Loop()


def test_the_folder_holds_config_log_pictures_and_result(tmp_path: Path):
    run = Run(tmp_path / "run", Config(rate=0.25))
    run.log(1, **{"loss": torch.tensor(2.0), "lr.llm": 1e-3})
    run.save_image("first", Image.new("RGB", (2, 2)))
    run.finish({"psnr": 23.0})
    assert load_config(Config, tmp_path / "run" / "config.yaml") == Config(rate=0.25)
    (line,) = read_log(tmp_path / "run" / "log.jsonl")
    assert (line["step"], line["loss"], line["lr.llm"]) == (1, 2.0, 1e-3) and line["seconds"] >= 0
    assert Image.open(tmp_path / "run" / "samples" / "first.png").size == (2, 2)
    assert run.result["psnr"] == 23.0 and run.result["seconds"] >= line["seconds"]


def test_what_is_not_finite_becomes_null(tmp_path: Path):
    run = Run(tmp_path, Config())
    run.log(1, a=float("nan"), b=torch.tensor(float("inf")), c=3)
    line = json.loads((tmp_path / "log.jsonl").read_text(), parse_constant=pytest.fail)
    assert (line["a"], line["b"], line["c"]) == (None, None, 3)


def test_a_resumed_log_has_every_step_once(tmp_path: Path):
    first = Run(tmp_path, Config())
    for step in range(1, 6):
        first.log(step, loss=step)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 6, "los')  # killed while writing
    second = Run(tmp_path, Config())
    second.rewind(3)
    for step in (4, 5, 6):
        second.log(step, loss=10 * step)
    assert [(line["step"], line["loss"]) for line in read_log(tmp_path / "log.jsonl")] == [
        (1, 1), (2, 2), (3, 3), (4, 40), (5, 50), (6, 60),
    ]  # fmt: skip


def test_a_fresh_start_empties_the_log(tmp_path: Path):
    Run(tmp_path, Config()).log(1, loss=1)
    Run(tmp_path, Config()).rewind(0)
    assert read_log(tmp_path / "log.jsonl") == []


def test_seconds_go_on_after_a_restart(tmp_path: Path):
    (tmp_path / "log.jsonl").write_text('{"step": 1, "seconds": 100.0}\n{"step": 2, "seconds": 200.0}\n')
    run = Run(tmp_path, Config())
    run.rewind(1)  # the time of what is done again was spent all the same
    run.finish({})
    assert 200 <= run.result["seconds"] < 300


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"step": 4'])
def test_a_damaged_result_is_named(tmp_path: Path, content):
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(ValueError, match=r"result\.json is damaged .*delete it"):
        Run(tmp_path, Config()).result  # noqa: B018


def test_other_ranks_write_nothing(tmp_path: Path):
    run = Run(tmp_path / "run", Config(), is_main=False)
    run.rewind(0)
    run.log(1, loss=1)
    run.save_image("first", Image.new("RGB", (2, 2)))
    run.finish({})
    with run.progress(3, "quiet") as bar:
        bar.update()
    assert not (tmp_path / "run").exists()


def test_trackers_repeat_the_log(tmp_path: Path, monkeypatch):
    pytest.importorskip("tensorboard")
    run = Run(tmp_path, Config(), TrackingConfig(tensorboard=True))
    run.log(1, **{"pixel.loss": 2.0, "broken": float("nan")})
    run.finish({})
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Tags()["scalars"] == ["pixel/loss"]
    assert events.Scalars("pixel/loss")[0].value == 2.0


def test_wandb_gets_the_numbers_and_the_samples_as_one_series(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = Run(tmp_path, Config(), TrackingConfig(wandb=True))
    for step in (10, 20):
        run.log(step, loss=1.0, spike="image-7")
        run.save_image(f"step-{step:06d}", Image.new("RGB", (2, 2)), step)
        run.log(step, **{"validation.loss": 2.0})
    summary = dict(run._wandb.summary)
    assert (summary["loss"], summary["validation.loss"]) == (1.0, 2.0) and "spike" not in summary
    run.finish({})
    pictures = sorted(tmp_path.glob("wandb/offline-run-*/files/media/images/*.png"))
    assert [picture.name.rsplit("_", 1)[0] for picture in pictures] == ["samples_10", "samples_20"]


def begun(folder: Path, config: Config) -> None:
    Run(folder, config)
    (folder / "checkpoints" / "step-000004").mkdir()


def test_a_changed_config_is_listed_and_refused(tmp_path: Path):
    begun(tmp_path, Config(names=["a", "b"]))
    with pytest.raises(ValueError, match=r"rate: 0\.5 → 0\.1; names\.1: b → c\)"):
        refuse_changed_config(tmp_path, Config(rate=0.1, names=["a", "c"]))
    with pytest.raises(ValueError, match=r"names\.1: b → None"):
        refuse_changed_config(tmp_path, Config(names=["a"]))


def test_changes_pass_that_are_allowed_by_name_or_by_group(tmp_path: Path, caplog):
    begun(tmp_path, Config(names=["a", "b"]))
    with pytest.raises(ValueError, match=r"\(rate: 0\.5 → 0\.1\).*loop\.allow_changes=\[rate\]"):
        refuse_changed_config(tmp_path, Config(rate=0.1, names=["c"], loop=Loop(allow_changes=["names"])))
    refuse_changed_config(tmp_path, Config(rate=0.1, names=["c"], loop=Loop(allow_changes=["names", "rate"])))
    assert "goes on with another config (rate: 0.5 → 0.1; names.0: a → c; names.1: b → None)" in caplog.text


def test_harmless_changes_pass(tmp_path: Path):
    begun(tmp_path, Config())
    refuse_changed_config(tmp_path, Config(out="elsewhere", loop=Loop(20)))


def test_a_warm_up_that_moves_with_the_number_of_steps_is_told(tmp_path: Path, caplog):
    begun(tmp_path, Config(schedule=ScheduleConfig(warmup=0.2)))
    refuse_changed_config(tmp_path, Config(schedule=ScheduleConfig(warmup=0.2)))
    assert not caplog.text
    refuse_changed_config(tmp_path, Config(schedule=ScheduleConfig(warmup=0.2), loop=Loop(20)))
    assert "loop.steps: 10 → 20, which moves its shares of them: schedule.warmup from step 2 to 4" in caplog.text


def test_a_result_that_is_there_is_of_this_config(tmp_path: Path):
    Run(tmp_path, Config())
    refuse_other_result(tmp_path, Config(rate=0.1))
    (tmp_path / "result.json").touch()
    refuse_other_result(tmp_path, Config(out="elsewhere"))
    with pytest.raises(ValueError, match=r"another config \(rate: 0\.5 → 0\.1; loop\.steps: 10 → 20\)"):
        refuse_other_result(tmp_path, Config(rate=0.1, loop=Loop(20)))


def test_without_a_checkpoint_there_is_nothing_to_protect(tmp_path: Path):
    Run(tmp_path, Config())
    refuse_changed_config(tmp_path, Config(rate=0.1))


def test_the_rate_rises_linearly_and_falls_as_a_cosine():
    config = ScheduleConfig(warmup=4, final=0.1)
    rates = [lr_multiplier(config, step, 24) for step in range(24)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0 and rates[14] == pytest.approx(0.55)  # half-way between 1 and 0.1
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert lr_multiplier(config, 24, 24) == lr_multiplier(config, 99, 24) == pytest.approx(0.1)


def test_warm_up_may_be_a_share_and_the_rest_constant():
    config = ScheduleConfig(kind="constant", warmup=0.1)
    assert [lr_multiplier(config, step, 20) for step in (0, 1, 2, 19)] == [0.5, 1.0, 1.0, 1.0]
    assert lr_multiplier(ScheduleConfig(warmup=0), 0, 10) == 1.0


@pytest.mark.parametrize("wrong", [{"kind": "linear"}, {"warmup": -1}, {"final": 2.0}])
def test_an_impossible_schedule_is_refused(wrong):
    with pytest.raises(ValueError, match="schedule"):
        ScheduleConfig(**wrong)
