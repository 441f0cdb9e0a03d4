"""What goes with the codes: statistics, conversations, verify.png; and the examples of docs/data.md."""

import json
import re
import shlex
import shutil
import tarfile
from io import BytesIO
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

import dualtoken
from data.code_counts import CodeCounts
from data.codes import CodeStore
from data.conversations import conversation_turns
from data.image_library import ImageLibrary
from tests.train.tiny_mllm import make_world

ROOT = Path(__file__).parents[2]
TURNS = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "Noise."}]


def picture(seed: int) -> bytes:
    buffer = BytesIO()
    pixels = np.random.default_rng(seed).integers(256, size=(8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that docs/data.md names."""
    folder = tmp_path_factory.mktemp("docs")
    make_world(folder / "runs")
    (folder / "runs/demo/tokenizer").mkdir(parents=True)
    shutil.move(folder / "runs/tokenizer", folder / "runs/demo/tokenizer/export")
    shutil.copytree(ROOT / "configs/tiny", folder / "configs/tiny")
    (folder / "shards").mkdir()
    for shard in range(2):
        with tarfile.open(folder / f"shards/{shard:06d}.tar", "w") as tar:
            for i in range(3):
                text = json.dumps({"caption": f"c {i}", **({"conversations": TURNS} if i == 1 else {})})
                for ending, content in (("png", picture(3 * shard + i)), ("json", text.encode())):
                    member = tarfile.TarInfo(f"s{shard}{i}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, BytesIO(content))
    (folder / "photos").mkdir()
    (folder / "photos/a.png").write_bytes(picture(9))
    (folder / "photos/metadata.csv").write_text("file_name,caption\na.png,an a\n")
    (folder / "rows").mkdir()
    rows = {"image": [{"bytes": picture(7), "path": None}], "caption": ["a row"]}
    datasets.Dataset.from_dict(rows).to_parquet(str(folder / "rows/0.parquet"))
    return folder


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "docs/data.md").read_text(), re.DOTALL | re.MULTILINE)


def test_the_examples_of_the_docs_run(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.chdir(place)
    for block in blocks("python"):
        exec(compile(block, "docs/data.md", "exec"), {})
    for line in "".join(blocks("bash")).splitlines():
        assert dualtoken.main(shlex.split(line)[1:]) == 0, capsys.readouterr().err
    sizes = {path.name: len(CodeStore.open(path)) for path in Path("codes").iterdir()}
    assert sizes == {"shards": 6, "photos": 1, "rows": 1, "datasets": 1, "mixed": 4}
    said = capsys.readouterr().out
    assert "6 pictures over what their codes hold; 100.00% of their codes come again" in said
    assert Image.open("codes/shards/verify.png").width > 8 * 128

    store = CodeStore.open("codes/shards")
    records = [json.loads(line) for line in Path("codes/shards/conversations.jsonl").read_text().splitlines()]
    assert [record["image"] for record in records] == ["s01", "s11"]
    assert len(conversation_turns(records[1], ImageLibrary(store), "test")) == 2

    statistics = json.loads(Path("codes/shards/statistics.json").read_text())
    for branch, name in enumerate(("pixel", "semantic")):
        codes = np.stack([store.codes(i)[branch] for i in range(6)])
        counts = np.stack([np.bincount(codes[..., d].ravel(), minlength=8) for d in range(3)])
        assert statistics[name]["counts"] == counts.tolist()

    rows = Path("codes/shards/00000/counts.npz")
    before = rows.stat().st_mtime_ns  # a store that is there is not made again
    assert dualtoken.main(["pretokenize", "configs/tiny/pretokenize.yaml", "source=shards", "out=codes/shards"]) == 0
    assert rows.stat().st_mtime_ns != before  # another source is another store


def test_entropy_and_usage_of_counted_codes():
    counts = CodeCounts(depth=2, codebook_size=4)
    counts.add(np.array([[0, 1], [1, 1]]), np.array([[3, 3], [3, 3]]))
    found = counts.statistics()
    assert found["pixel"]["entropy_bits"] == [1.0, 0.0] and found["pixel"]["usage"] == [0.5, 0.25]
    assert found["semantic"]["counts"] == [[0, 0, 0, 2], [0, 0, 0, 2]]
    assert found["pixel"]["usage_any_depth"] == 0.5 and found["num_images"] == 1
