"""Prompts → pictures with a made-up model: the official layouts, seeds, a stopped run, other settings, wrong files."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from eval.draw_benchmark import draw_benchmarks, seed_of
from eval.picture_folders import save_whole
from eval.prompt_sets import DPG, MJHQ, GenEval, PromptFile

GENEVAL = [
    {"tag": "single_object", "include": [{"class": "dog", "count": 1}], "prompt": "a photo of a dog"},
    {"tag": "counting", "include": [{"class": "cat", "count": 2}], "exclude": [], "prompt": "a photo of two cats"},
    {"tag": "colors", "include": [], "prompt": "a photo of a red apple"},
]


def paint(texts, seeds):
    """A picture whose colour is its seed's."""
    assert len(texts) == len(seeds)
    return [Image.new("RGB", (4, 4), tuple(seed.to_bytes(8, "big")[-3:])) for seed in seeds]


def color(path):
    return Image.open(path).getpixel((0, 0))


def expected(seed, prompt_id, number):
    return tuple(seed_of(seed, prompt_id, number).to_bytes(8, "big")[-3:])


@pytest.fixture
def prompts(tmp_path):
    folder = tmp_path / "prompts"
    (folder / "dpg").mkdir(parents=True)
    (folder / "evaluation_metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in GENEVAL))
    for name in ("partiprompts7", "12"):
        (folder / "dpg" / f"{name}.txt").write_text(f"A long description of {name}.\n")
    records = {"0a1b": {"category": "animals", "prompt": "a fox"}, "2c3d": {"category": "logo", "prompt": "a star"}}
    (folder / "meta_data.json").write_text(json.dumps(records))
    (folder / "own.txt").write_text("a lighthouse\n\n  a corgi \n")
    (folder / "own.jsonl").write_text('{"prompt": "a lighthouse", "note": 1}\n')
    return folder


def run(sets, out, draw=paint, **options):
    return draw_benchmarks(sets, draw, out, {"model": "a"}, **options)


def test_pictures_lie_where_the_official_evaluators_look(prompts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = PromptFile(prompts / "own.txt", num_pictures=2)
    geneval = GenEval(prompts / "evaluation_metadata.jsonl", num_pictures=7)  # its protocol says 4
    sets = [geneval, DPG(prompts / "dpg"), MJHQ(prompts / "meta_data.json"), own]
    result = run(sets, Path("out"), seed=5, batch_size=3)
    out = tmp_path / "out"
    for index, row in enumerate(GENEVAL):
        folder = out / f"geneval/{index:05d}"
        assert json.loads((folder / "metadata.jsonl").read_text()) == row
        assert sorted(path.name for path in (folder / "samples").iterdir()) == [f"{n:04d}.png" for n in range(4)]
        assert color(folder / "samples/0002.png") == expected(5, f"{index:05d}", 2)
    assert sorted(path.name for path in (out / "dpg/grids").iterdir()) == ["12.png", "partiprompts7.png"]
    grid = Image.open(out / "dpg/grids/12.png")
    corners = [grid.crop((x, y, x + 4, y + 4)).getcolors() for y in (0, 4) for x in (0, 4)]  # as the official crops
    assert (grid.size, corners) == ((8, 8), [[(16, expected(5, "12", number))] for number in range(4)])
    assert color(out / "mjhq/animals/0a1b.png") == expected(5, "0a1b", 0)
    assert sorted(p.relative_to(out / "prompts").as_posix() for p in (out / "prompts").glob("*/*")) == [
        f"{i:05d}/{n:04d}.png" for i in range(2) for n in range(2)
    ]
    rows = [json.loads(line) for line in (out / "prompts/pictures.jsonl").read_text().splitlines()]
    assert rows[3] == {"file": "00001/0001.png", "prompt": "a corgi", "seed": seed_of(5, "00001", 1)}
    assert {name: task["num_pictures"] for name, task in result["tasks"].items()} == {
        "geneval": 12, "dpg": 8, "mjhq": 2, "prompts": 4,
    }  # fmt: skip
    assert result["tasks"]["dpg"]["next_commands"][0] == f"bash dpg_bench/dist_eval.sh {out}/dpg/grids 4"
    assert f"--images {out}/mjhq" in result["tasks"]["mjhq"]["next_commands"][0]
    assert result["tasks"]["geneval"]["warnings"] == {"prompts_instead_of_the_official_553": 3}
    assert all("not_graded" in task and not task["partial"] for task in result["tasks"].values())
    assert json.loads((out / "result.json").read_text()) == result
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["tasks"]["mjhq"]["model"] == "a" and len(manifest["tasks"]["mjhq"]["prompt_files"]) == 64
    assert manifest["tasks"]["mjhq"]["seed"] == 5 and manifest["versions"]["torch"] and manifest["processes"] == 1


def test_json_lines_and_plain_lines_are_the_same_prompts(prompts):
    first = PromptFile(prompts / "own.txt").prompts()[0]
    assert PromptFile(prompts / "own.jsonl").prompts()[0].text == first.text == "a lighthouse"


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def test_a_stopped_run_draws_what_is_missing_in_the_same_blocks(prompts, tmp_path):
    geneval = GenEval(prompts / "evaluation_metadata.jsonl")
    whole = []
    run([geneval], tmp_path / "whole", lambda *batch: whole.append(batch) or paint(*batch), batch_size=5)
    assert [len(texts) for texts, _ in whole] == [5, 5, 2]
    assert whole[0][0] == ["a photo of a red apple"] * 4 + ["a photo of two cats"]  # the longest first

    def stops(texts, seeds):
        if seeds == whole[2][1]:
            raise KeyboardInterrupt
        return paint(texts, seeds)

    out = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        run([geneval], out, stops, batch_size=5)
    assert len(contents(out)) == 10 and not (out / "result.json").exists()
    torn = out / "geneval/00000/samples/.0003.png.partial"
    torn.write_bytes(b"half")
    (out / "geneval/00001/samples/0001.png").unlink()  # in the middle block
    again = []
    run([geneval], out, lambda *batch: again.append(batch) or paint(*batch), batch_size=5)
    assert again == whole[1:]
    assert contents(out) == contents(tmp_path / "whole") and not torn.exists()


def test_a_picture_whose_writing_stops_has_no_name(tmp_path):
    class Torn:
        def save(self, file, kind):
            file.write(b"half")
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        save_whole(Torn(), tmp_path / "0000.png")
    [left] = tmp_path.iterdir()
    assert not re.match(r"\d+\.png", left.name)  # what GenEval's evaluator takes for a picture


def test_a_limit_draws_the_same_pictures_of_fewer_prompts(prompts, tmp_path):
    geneval = GenEval(prompts / "evaluation_metadata.jsonl")
    run([geneval], tmp_path / "whole")
    result = run([geneval], tmp_path / "some", limit=2)
    assert result["partial"] and result["limit"] == 2
    assert (result["tasks"]["geneval"]["num_prompts"], result["tasks"]["geneval"]["num_pictures"]) == (2, 8)
    some = contents(tmp_path / "some")
    assert {path.parts[1] for path in some} == {"00000", "00001"}
    assert some.items() < contents(tmp_path / "whole").items()
    assert json.loads((tmp_path / "some/manifest.json").read_text())["partial"]


def test_pictures_of_other_settings_move_aside_and_come_back(prompts, tmp_path, capsys):
    own, drawn = PromptFile(prompts / "own.txt"), []

    def draw(texts, seeds):
        drawn.extend(texts)
        return paint(texts, seeds)

    run([own], tmp_path / "out", draw, seed=1)
    first = contents(tmp_path / "out/prompts")
    run([own], tmp_path / "out", draw, seed=2)
    assert "differ in seed: they are in" in capsys.readouterr().out
    assert contents(tmp_path / "out/prompts") != first and len(drawn) == 4
    run([own], tmp_path / "out", draw, seed=1)
    assert contents(tmp_path / "out/prompts") == first and len(drawn) == 4
    (tmp_path / "foreign/prompts").mkdir(parents=True)
    (tmp_path / "foreign/prompts/holiday.png").touch()
    with pytest.raises(ValueError, match="not of this command"):
        run([own], tmp_path / "foreign")


@pytest.mark.parametrize(
    ("kind", "name", "content", "message"),
    [
        (GenEval, "a.jsonl", '{"tag": "colors", "prompt": "a dog"}\n', "row 1 has no `tag` or `include`"),
        (GenEval, "a.jsonl", '{"tag": "colors", "include": [], "prompt": " "}\n', "row 1 has no prompt"),
        (GenEval, "a.jsonl", '{"tag": "colors", "incl', "not complete JSON"),
        (MJHQ, "a.json", "[]", "is not a table"),
        (MJHQ, "a.json", '{"1": "a fox"}', "'1' is not {category, prompt}"),
        (MJHQ, "a.json", '{"1": {"category": "..", "prompt": "x"}}', "cannot be the name of a file"),
        (MJHQ, "a.json", '{"../1": {"category": "art", "prompt": "x"}}', "cannot be the name of a file"),
        (MJHQ, "a.json", '{"1": {"category": "art"}}', "has no prompt"),
        (MJHQ, "a.json", '{"1": {}, "1": {}}', "holds '1' twice"),
        (PromptFile, "a.txt", "\n \n", "holds no prompts"),
        (PromptFile, "a.txt", b"a caf\xe9", "is not UTF-8"),
        (PromptFile, "a.jsonl", '{"text": "a fox"}\n', "row 1 has no prompt"),
        (DPG, "1.txt", "", r"1\.txt has no prompt"),
    ],
)
def test_other_files_are_one_clear_sentence(tmp_path, kind, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        kind(tmp_path if kind is DPG else path).prompts()


def test_missing_files_are_named(tmp_path):
    for kind in (GenEval, MJHQ, PromptFile):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            kind(tmp_path / "nowhere").prompts()
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        DPG(tmp_path / "nowhere").prompts()
    with pytest.raises(ValueError, match=r"holds no \.txt file"):
        DPG(Path(tmp_path)).prompts()
