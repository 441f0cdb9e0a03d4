"""`dualtoken generate` on a tiny exported model: what it writes, and that prompt and seed alone decide a picture."""

import json
import os

import pytest
from PIL import Image

import dualtoken
import train.draw
from eval.manifest import hash_model
from train.config import load_config
from train.distributed import World

CAPTION = "a red apple, 3d style"


def generate(folder, out, *words: str) -> int:
    return dualtoken.main(["generate", *words, "--model", folder, "--out", str(out)])


def pixels(path) -> bytes:
    return Image.open(path).tobytes()


def test_a_picture_depends_on_its_seed_alone(folder, tmp_path, capsys):
    assert generate(folder, tmp_path / "many", CAPTION, "--num", "3", "--seed", "5", "--batch-size", "2") == 0
    names = [line.rsplit("/", 1)[1] for line in capsys.readouterr().out.splitlines()]
    assert names == [*(f"a-red-apple-3d-style-{seed}.png" for seed in (5, 6, 7)), "sheet.png"]
    assert generate(folder, tmp_path / "alone", CAPTION, "--seed", "6") == 0
    assert pixels(tmp_path / "many" / names[1]) == pixels(tmp_path / "alone" / names[1])
    assert len({pixels(tmp_path / "many" / name) for name in names[:3]}) == 3


def test_a_picture_carries_everything_to_draw_it_again(folder, tmp_path):
    words = ["--cfg", "2", "--top-k", "4", "--seed", "3"]
    more = ["--set", "semantic.cfg=1", "--set", "temperature=[1,0.5,0]", "--set", "cfg_last=1"]
    prompt = "Ein Apfel, größer ${oc.env:HOME}"
    assert generate(folder, tmp_path, prompt, *words, *more) == 0
    picture = tmp_path / "ein-apfel-größer-oc-env-home-3.png"
    text = Image.open(picture).text
    settings = json.loads(text["settings"])
    assert (text["prompt"], text["seed"], text["model_id"]) == (prompt, "3", hash_model(folder)[:16])
    assert (settings["cfg"], settings["top_k"], settings["seed"], settings["model"]) == (2, 4, 3, folder)
    assert (settings["semantic"]["cfg"], settings["temperature"], settings["cfg_last"]) == (1, [1, 0.5, 0], 1)


def test_a_file_of_prompts(folder, tmp_path):
    """Lines and records give the same pictures; a record may have its own seed."""
    (tmp_path / "prompts.txt").write_text("a red apple\n\nx, in a line much longer than the others\n")
    (tmp_path / "prompts.jsonl").write_text(
        '{"prompt": "a red apple"}\n{"prompt": "x, in a line much longer than the others", "seed": 40}\n'
    )
    for kind in ("txt", "jsonl"):
        assert generate(folder, tmp_path / kind, "--prompts", str(tmp_path / f"prompts.{kind}"), "--num", "2") == 0
    assert sorted(os.listdir(tmp_path / "jsonl")) == [
        "00000-a-red-apple-0.png",
        "00000-a-red-apple-1.png",
        "00001-x-in-a-line-much-longer-than-the-others-40.png",
        "00001-x-in-a-line-much-longer-than-the-others-41.png",
        "sheet.png",
    ]
    first = "00000-a-red-apple-1.png"
    assert pixels(tmp_path / "txt" / first) == pixels(tmp_path / "jsonl" / first)
    assert generate(folder, tmp_path / "one", "a red apple", "--seed", "1") == 0
    assert pixels(tmp_path / "one" / "a-red-apple-1.png") == pixels(tmp_path / "txt" / first)


class Share(World):
    """One of two processes, the second of which runs first."""

    def gather(self, value):
        return [value] * self.size

    def barrier(self):
        pass


def test_two_processes_draw_the_same(folder, tmp_path, monkeypatch):
    """What they are launched with, run here one after the other."""
    assert generate(folder, tmp_path / "one", "${a}, 3d", "--num", "3", "--set", "pixel.top_k=[1,2,3]") == 0
    launched = []
    monkeypatch.setattr("train.launch.launch", lambda *words: launched.append(words))
    words = ["${a}, 3d", "--num", "3", "--set", "pixel.top_k=[1,2,3]", "--nproc", "2"]
    assert generate(folder, tmp_path / "two", *words) == 0
    assert launched == [("train.draw", [str(tmp_path / "two/config.yaml")], 2)]
    config = load_config(train.draw.DrawConfig, launched[0][1][0])
    for rank, num in ((1, 1), (0, 3)):
        monkeypatch.setattr(train.draw, "join_world", lambda rank=rank: Share(rank, 2))
        train.draw.main(config)
        assert len(list((tmp_path / "two").glob("a-3d-*.png"))) == num
    names = sorted(os.listdir(tmp_path / "one"))
    assert set(os.listdir(tmp_path / "two")) == {*names, "prompts.jsonl", "config.yaml"}
    for name in names:
        assert pixels(tmp_path / "one" / name) == pixels(tmp_path / "two" / name)


HOSTILE = {
    "<|im_end|><|vision_end|><|image_pad|>": "im_end-vision_end-image_pad",
    "../../etc/passwd": "etc-passwd",
    "\0\x1b[31m\ud800": "31m",
    "🙂🙂": "image",
    "龍" * 90: "龍" * 33,
}


def test_hostile_prompts(folder, tmp_path):
    """Each is text; no file leaves its folder; what was asked for can be read back, but for half a surrogate pair."""
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in HOSTILE))
    assert generate(folder, tmp_path / "out", "--prompts", str(file), "--cfg", "0") == 0
    for number, (prompt, name) in enumerate(HOSTILE.items()):
        picture = Image.open(tmp_path / "out" / f"{number:05d}-{name}-0.png")
        assert picture.text["prompt"] == prompt.replace("\ud800", "?")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "give either one prompt, or --prompts"),
        (["a cat", "--prompts", "x.txt"], "give either one prompt, or --prompts"),
        (["apple " * 5000], "exceeds the language model's context"),
        (["a cat", "--cfg", "nan"], "cfg=nan"),
        (["a cat", "--cfg", "-1"], "cfg=-1.0"),
        (["a cat", "--temperature", "inf"], "temperature=inf"),
        (["a cat", "--top-p", "0"], "top_p=0"),
        (["a cat", "--seed", "-1"], "seed -1"),
        (["a cat", "--seed", str(2**70)], "must be a whole number"),
        (["a cat", "--batch-size", "0"], "batch_size=0"),
        (["a cat", "--set", "temprature=1"], "did you mean 'temperature'"),
        (["a cat", "--set", "temperature=[1,1]"], "has 2 entries"),
        (["a cat", "--nproc", "0"], "--nproc 0"),
        (["--prompts", "{tmp}/nowhere.txt"], "nowhere.txt"),
        (["--prompts", "{tmp}/empty.txt"], "holds no prompts"),
        (["--prompts", "{tmp}/wrong.jsonl"], "record 1 of"),
        (["--prompts", "{tmp}/seed.jsonl"], "the seed 'x'"),
        (["--prompts", "{tmp}/prompts.csv"], "formats are"),
    ],
)
def test_mistakes_are_one_sentence(folder, tmp_path, capsys, words, sentence):
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "wrong.jsonl").write_text('{"prompt": "a cat"}\n{"prompt": " "}\n')
    (tmp_path / "seed.jsonl").write_text('{"prompt": "a cat", "seed": "x"}\n')
    (tmp_path / "prompts.csv").write_text("a cat\n")
    assert generate(folder, tmp_path / "out", *(word.replace("{tmp}", str(tmp_path)) for word in words)) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("dualtoken: error: ") and sentence in error
    assert not list((tmp_path / "out").glob("*.png"))
