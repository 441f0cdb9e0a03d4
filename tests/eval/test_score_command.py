"""`dualtoken score`: options, JSON names, tables, bad files; and that none of it needs torch."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from eval import score


def run(*arguments):
    parser = argparse.ArgumentParser()
    score.add_arguments(parser)
    return score.run(parser.parse_args([*map(str, arguments)]))


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def vqav2(tmp_path):
    answers = [{"answer": "cat", "answer_confidence": "yes", "answer_id": i} for i in range(10)]
    row = {"question_id": 1, "image_id": 5, "question_type": "what", "answer_type": "other", "answers": answers}
    contents = {
        "questions": {"questions": [{"question_id": 1, "image_id": 5, "question": "What?"}]},
        "annotations": {"annotations": [row]},
        "results": [{"question_id": 1, "answer": "cat"}],
    }
    arguments = ["vqav2"]
    for name, content in contents.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        arguments += [f"--{name}", tmp_path / f"{name}.json"]
    return arguments


def test_vqav2_prints_a_table_and_writes_the_stable_names(vqav2, tmp_path, capsys):
    result = run(*vqav2, "--json", tmp_path / "new folder" / "out.json")
    assert json.loads((tmp_path / "new folder" / "out.json").read_text()) == result
    assert result["overall"] == 100
    assert result["per_answer_type"] == {"other": 100} and result["per_question_type"] == {"what": 100}
    assert result["per_question"] == {"1": 100}
    assert "official vqaEval.py" in result["protocol"]
    assert capsys.readouterr().out.splitlines() == ["overall            100.00", "answer type other  100.00"]


def test_mme_warns_by_name_on_standard_output(tmp_path, capsys):
    (tmp_path / "OCR.txt").write_text("x.jpg\tQ\tYes\tyes\nx.jpg\tR\tNo\tmaybe\n")
    result = run("mme", "--results", tmp_path)
    assert (result["perception"], result["tasks"]) == (50, {"OCR": 50})
    out = capsys.readouterr().out
    assert "warning: missing tasks: existence, count" in out
    assert "warning: other answers: 1" in out


def pope_files(tmp_path, *names):
    labels = [{"question_id": i, "image": "x.jpg", "text": "Q", "label": "yes" if i else "no"} for i in (0, 1)]
    arguments = {"labels": [], "answers": []}
    for place, name in enumerate(names):
        arguments["labels"].append(write_lines(tmp_path / f"coco_pope_{name}.json", labels))
        answers = [{"question_id": i, "answer": "Yes" if i >= place else "No"} for i in (0, 1)]
        arguments["answers"].append(write_lines(tmp_path / f"{name}.jsonl", answers))
    return arguments


def test_pope_takes_one_split_without_a_name(tmp_path):
    files = pope_files(tmp_path, "random")
    result = run("pope", "--labels", *files["labels"], "--answers", *files["answers"])
    assert result["random"]["accuracy"] == result["accuracy"] == 0.5
    assert result["mean_f1"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("repeat_option", [True, False])
def test_pope_takes_several_splits_with_names(tmp_path, repeat_option):
    files = pope_files(tmp_path, "random", "popular")
    arguments = ["pope"]
    for option, paths in files.items():
        named = [f"{name}={path}" for name, path in zip(("random", "popular"), paths, strict=True)]
        if repeat_option:
            arguments += [word for value in named for word in (f"--{option}", value)]
        else:
            arguments += [f"--{option}", *named]
    result = run(*arguments)
    assert result["popular"] == {
        **{name: 1.0 for name in ("accuracy", "precision", "recall", "f1")},
        "yes_ratio": 0.5,
        "num_questions": 2,
    }
    assert result["mean_f1"] == pytest.approx((2 / 3 + 1) / 2)


def test_pope_splits_without_names_or_pairs_are_an_error(tmp_path):
    files = pope_files(tmp_path, "random", "popular")
    (label, other), (answer, _) = files["labels"], files["answers"]
    with pytest.raises(ValueError, match="given twice"):
        run("pope", "--labels", label, other, "--answers", f"random={answer}")
    with pytest.raises(ValueError, match="need names"):
        run("pope", "--labels", label, f"popular={other}", "--answers", f"random={answer}")
    with pytest.raises(ValueError, match="--answers lacks 1 of the ids of --labels"):
        run("pope", "--labels", f"random={label}", f"popular={other}", "--answers", f"random={answer}")


def test_mmbench_names(tmp_path):
    lines = ["index\tquestion\thint\tA\tB\tanswer\tcategory\tprediction", "1\tQ\t\tcat\tdog\tA\tpets\tA"]
    (tmp_path / "r.tsv").write_text("\n".join([*lines, "1000001\tQ\t\tdog\tcat\tB\tpets\tcat dog"]) + "\n")
    result = run("mmbench", "--results", tmp_path / "r.tsv")
    assert (result["circular"], result["vanilla"], result["unparsed"]) == (0, 1, 1)
    assert result["per_category"] == {"pets": 0}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"questions": [{"question_id"', r"questions\.json is not complete JSON \(line 1"),
        (b'{"questions": "\xff"}', r"questions\.json is not UTF-8 \(byte 15\)"),
        (b"[]", "has no list 'questions'"),
        (b'{"questions": []}', "has no list 'questions'"),
        (b"", "is not complete JSON"),
        (None, "does not exist"),
    ],
)
def test_broken_files_are_one_clear_sentence(vqav2, tmp_path, content, message):
    path = tmp_path / "questions.json"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises((ValueError, OSError), match=message) as error:
        run(*vqav2)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"question_id": 1, "answer": "Yes"}\n{"quest', "line 2 is not complete JSON"),
        (b'{"question_id": 1, "answer": "\xe9"}\n', "is not UTF-8"),
        (b'[{"question_id": 1}]\n', "line 1 is not a JSON object"),
        (b"\n", "holds no rows"),
    ],
)
def test_broken_lines_are_one_clear_sentence(tmp_path, content, message):
    files = pope_files(tmp_path, "random")
    files["answers"][0].write_bytes(content)
    with pytest.raises(ValueError, match=message):
        run("pope", "--labels", *files["labels"], "--answers", *files["answers"])


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path):
    (tmp_path / "OCR.txt").write_bytes(b"\xef\xbb\xbfx.jpg\tQ\tYes\tyes\r\nx.jpg\tR\tNo\tno\r\n")
    assert run("mme", "--results", tmp_path)["perception"] == 200


def test_every_scorer_has_what_the_command_needs():
    for scorer in score.SCORERS.values():
        assert scorer.HELP and scorer.PROTOCOL and scorer.__doc__


def test_scorers_need_no_torch(tmp_path):
    (tmp_path / "OCR.txt").write_text("x.jpg\tQ\tYes\tyes\nx.jpg\tR\tNo\tno\n")
    code = (
        "import sys, dualtoken; code = dualtoken.main(['score', 'mme', '--results', sys.argv[1]]); "
        "print(code, {'torch', 'transformers', 'torchvision'} & set(sys.modules))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, cwd=root)
    assert (done.stdout.splitlines()[-1], done.stderr) == ("0 set()", "")
