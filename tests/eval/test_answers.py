"""Answers that outlive their process: continuing, torn lines, other models, several processes."""

import json

import pytest

from eval.answers import Answers
from eval.runner import open_benchmarks, run_benchmarks
from tests.eval.test_benchmark_data import write_split


def test_a_torn_line_is_asked_again_and_spoils_nothing(tmp_path):
    first = Answers(tmp_path, {"model": "a"})
    first.start()
    first.append(0, "What?", "größer")
    first.close()
    path = first.folder / "rank-00000.jsonl"
    path.write_bytes(path.read_bytes() + '{"place": 1, "answer": "grö'.encode()[:-1])
    again = Answers(tmp_path, {"model": "a"})
    assert again.read() == {0: "größer"}
    again.append(1, "Why?", "so")
    again.close()
    other = Answers(tmp_path, {"model": "a"}, rank=1)
    other.append(2, "Who?", "she")
    other.close()
    assert Answers(tmp_path, {"model": "a"}).read() == {0: "größer", 1: "so", 2: "she"}


def test_answers_of_another_model_are_not_used_and_named(tmp_path):
    first = Answers(tmp_path, {"model": "a", "max_new_tokens": 3})
    first.start()
    first.append(0, "What?", "x")
    first.close()
    second = Answers(tmp_path, {"model": "b", "max_new_tokens": 3})
    assert second.read() == {}
    [sentence] = second.others()
    assert str(first.folder) in sentence and "differ in model and" in sentence


def test_a_stopped_run_goes_on_with_what_is_missing(tmp_path):
    write_split(tmp_path / "val")
    asked = []

    def stops(questions, max_new_tokens):
        yield 0, questions[0].reference
        yield 2, questions[2].reference
        raise KeyboardInterrupt

    def goes_on(questions, max_new_tokens):
        asked.extend(questions)
        return [(place, question.reference) for place, question in enumerate(questions)]

    benchmarks = open_benchmarks(tmp_path, "val")
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run_benchmarks(benchmarks, stops, out, made_from={"model": "a"})
    result = run_benchmarks(benchmarks, goes_on, out, made_from={"model": "a"})
    assert len(asked) == 4 - 2 + 2  # SEED-Bench without the two answers that were there, and MM-Vet
    assert result["tasks"]["seed"]["model"]["accuracy"] == result["tasks"]["seed"]["ceiling"]["accuracy"] == 1
    assert result["tasks"]["seed"]["chance"] == {"accuracy": 0.25}
    assert set(result["tasks"]["mmvet"]["model"]) == {"not_graded"}  # never a number
    assert json.loads((out / "mmvet/mm-vet.json").read_text()) == {"v1_0": "red", "v1_1": "red"}
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["model"] == "a" and manifest["versions"]["torch"]
    assert len(manifest["tasks"]["seed"]["question_files"]) == 64
