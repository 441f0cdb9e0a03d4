"""Folders with tables, parquet files and `datasets` behind one interface; damaged archives; streams that resume.

Long because one interface stands before all of them, and each breaks it in its own way.
"""

import csv
import io
import json
import os
import tarfile
from pathlib import Path
from typing import ClassVar

import datasets
import fsspec
import numpy as np
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

from data.augment import Augment, AugmentConfig
from data.ordered_map import ordered_map
from data.shard_names import Part, check_spec, modified, split_part
from data.shards import Order, count_samples, iterate_prepared, iterate_shards, select_samples, units


def png(color: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (color, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def seen(spec, **options) -> list[tuple[str, str, int]]:
    return [(s.key, s.caption, s.image.getpixel((0, 0))[0]) for s in iterate_shards(spec, **options)]


def write_tar(path: Path, keys: list[str]) -> str:
    with tarfile.open(path, "w") as tar:
        for place, key in enumerate(keys):
            for ending, content in (("png", png(place)), ("txt", f"caption {key}".encode(errors="replace"))):
                member = tarfile.TarInfo(f"{key}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return str(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pictures" / "sub").mkdir(parents=True)
    for name, color in (("b.png", 1), ("sub/a.png", 2), ("unlisted.png", 3)):
        (tmp_path / "pictures" / name).write_bytes(png(color))
    return tmp_path / "pictures"


ROWS = [{"file_name": "sub/a.png", "text": "an a", "n": 7}, {"file_name": "b.png", "text": "a b", "n": 8}]


def write_table(folder: Path, kind: str, rows: list[dict]) -> None:
    with (folder / f"metadata.{kind}").open("w", newline="") as file:
        if kind == "csv":
            writer = csv.DictWriter(file, ROWS[0])
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_folder_with_a_table_holds_what_the_table_lists_in_its_order(folder: Path, kind: str):
    write_table(folder, kind, ROWS)
    assert seen(folder) == [("sub/a", "an a", 2), ("b", "a b", 1)]
    assert [int(sample.metadata["n"]) for sample in iterate_shards(folder)] == [7, 8]
    assert seen([f"{folder}#1/2"]) == [("b", "a b", 1)]


@pytest.mark.parametrize("name", ["../secret.png", "/etc/secret.png", "", "sub/../../secret.png"])
def test_rows_that_leave_the_folder_are_bad_samples(folder: Path, name: str, caplog: pytest.LogCaptureFixture):
    (folder.parent / "secret.png").write_bytes(png(9))
    write_table(folder, "jsonl", [{"file_name": name}, *ROWS])
    assert [key for key, _, _ in seen(folder, limit_bad_share=0.4)] == ["sub/a", "b"]
    assert "which is no file below the folder" in caplog.text
    with pytest.raises(ValueError, match="1 of 3 samples"):
        seen(folder)


def test_missing_pictures_and_broken_lines_of_a_table_are_bad_samples(folder: Path, caplog: pytest.LogCaptureFixture):
    write_table(folder, "jsonl", [{"file_name": "gone.png"}, *ROWS])
    with (folder / "metadata.jsonl").open("a") as file:
        file.write("[1]\n{broken\n")
    assert len(seen(folder, limit_bad_share=0.7)) == 2
    assert "skipped gone" in caplog.text and "skipped 3 of 5 samples" in caplog.text


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_bad_byte_of_a_table_costs_its_row_and_a_byte_order_mark_nothing(folder: Path, kind: str, caplog):
    write_table(folder, kind, [*ROWS, {"file_name": "unlisted.png", "text": "SPOILT", "n": 9}, ROWS[0]])
    table = folder / f"metadata.{kind}"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes().replace(b"SPOILT", b"\xff"))
    assert [key for key, _, _ in seen(folder, limit_bad_share=0.3)] == ["sub/a", "b", "sub/a"]
    assert "the row of 'unlisted.png' in" in caplog.text


def test_a_field_that_is_too_long_for_csv_is_one_bad_row(folder: Path):
    csv.field_size_limit(131_072)  # Python's own; it is the process's, and some packages raise it
    write_table(folder, "csv", [ROWS[0] | {"text": "x" * 200_000}, *ROWS])
    assert units(folder) == [str(folder)] and len(seen(folder, limit_bad_share=0.4)) == 2


def test_large_folders_are_worked_on_in_parts(folder: Path, monkeypatch: pytest.MonkeyPatch):
    assert units(folder) == [str(folder)]
    monkeypatch.setattr("data.shards.FOLDER_PART", 2)
    parts = units(folder)
    assert parts == [f"{folder}#0/2", f"{folder}#1/2"]
    assert [seen([part]) for part in parts] == [seen(folder)[:1], seen(folder)[1:]]
    later = folder.stat().st_mtime + 10  # of a file in a folder below: the folder itself does not tell
    os.utime(folder / "sub" / "a.png", (later, later))
    assert [modified(name) for name in (parts[0], f"datasets:{folder}?split=train")] == [later, later]
    assert [modified(name) for name in ("pipe:true", "datasets:on/hub")] == [0, 0]


@given(st.integers(1, 9), st.integers(0, 40))
def test_parts_are_all_there_is_once(num: int, length: int):
    assert [i for index in range(num) for i in Part(index, num).range(length)] == list(range(length))
    assert split_part(f"datasets:x?split=a#1/{num}") == ("datasets:x?split=a", (1, num))


def rows(num: int) -> dict[str, list]:
    pictures = [{"bytes": png(i), "path": None} for i in range(num)]
    texts = [f"caption {i}" for i in range(num)]
    return {"image": pictures, "caption": texts, "id": [f"k{i}" for i in range(num)], "likes": list(range(num))}


def test_parquet_files_are_shards(tmp_path: Path):
    features = datasets.Features(
        {"image": datasets.Image(), "caption": datasets.Value("string"), "id": datasets.Value("string")}
        | {"likes": datasets.Value("int64")}
    )
    table = datasets.Dataset.from_dict(rows(5), features=features)
    for shard in range(2):
        table.shard(2, shard).to_parquet(str(tmp_path / f"{shard}.parquet"))
    expected = [(f"k{i}", f"caption {i}", i) for i in range(5)]
    assert seen(tmp_path) == seen(f"{tmp_path}/*.parquet") == expected
    assert [sample.metadata["likes"] for sample in iterate_shards(tmp_path)] == list(range(5))
    through = f"datasets:{tmp_path}?split=train"
    assert seen(through) == expected
    parts = units(through)
    assert len(parts) == 2 and [row for part in parts for row in seen(part)] == expected
    ranks = [seen(through, shuffle_seed=2, rank=rank, world_size=2) for rank in range(2)]  # a file for each
    assert sorted(map(sorted, ranks)) == [expected[:3], expected[3:]]
    unnamed = [[s.key for s in iterate_shards(spec)] for spec in (f"{through}&key=caption", parts)]
    assert unnamed == [[f"caption {i}" for i in range(5)], [f"k{i}" for i in range(5)]]
    assert [s.key for _, s in select_samples(through, lambda place: True)] == unnamed[1]
    (tmp_path / "2.parquet").write_bytes(b"no parquet")
    with pytest.raises(ValueError, match=r"1 of 6 samples .*2\.parquet"):
        seen(tmp_path)


def test_a_bad_row_hides_no_other_and_a_wrong_column_is_named_at_once(tmp_path: Path, caplog):
    table = pa.table(rows(4))
    words = pa.array([b"caption 0", b"\xff", b"caption 2", None], pa.binary()).view(pa.string())
    (tmp_path / "set").mkdir()
    parquet.write_table(table.set_column(1, "caption", words), tmp_path / "set" / "0.parquet")
    expected = [("k0", "caption 0", 0), ("k2", "caption 2", 2), ("k3", "", 3)]
    assert seen(tmp_path / "set", limit_bad_share=0.4) == expected
    assert "0.parquet: row 1: UnicodeDecodeError" in caplog.text and "(it gave 1 samples before)" in caplog.text
    with pytest.raises(ValueError, match="has no column 'titel'; there are image, caption, id, likes"):
        units(f"datasets:{tmp_path}/set?caption=titel")


def test_nulls_are_no_captions(tmp_path: Path):
    table = rows(3) | {"caption": [[None, "b"], None, []]}
    datasets.Dataset.from_dict(table).to_parquet(str(tmp_path / "0.parquet"))
    assert [caption for _, caption, _ in seen(tmp_path)] == ["b", "", ""]
    assert next(iterate_shards(tmp_path)).metadata["captions"] == ["b"]
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(png(1))
    write_table(tmp_path / "pictures", "jsonl", [{"file_name": "a.png", "caption": None}])
    assert seen(tmp_path / "pictures") == [("a", "", 1)]


def test_an_imagefolder_and_a_saved_dataset_through_datasets(folder: Path, tmp_path: Path):
    (folder / "unlisted.png").unlink()
    write_table(folder, "jsonl", ROWS)
    found = [(caption, color) for _, caption, color in seen(f"datasets:{folder}")]
    assert sorted(found) == [("a b", 1), ("an a", 2)]
    datasets.Dataset.from_dict(rows(3)).save_to_disk(str(tmp_path / "saved"))
    assert seen(f"datasets:{tmp_path}/saved?caption=id&key=caption")[1] == ("caption 1", "k1", 1)
    with pytest.raises(ValueError, match="no split 'test'; there are train"):
        seen(f"datasets:{tmp_path}/saved?split=test")
    two = {name: datasets.Dataset.from_dict(rows(num)) for name, num in (("train", 2), ("test", 1))}
    datasets.DatasetDict(two).save_to_disk(str(tmp_path / "both"))
    assert [len(seen(f"datasets:{tmp_path}/both{split}")) for split in ("", "?split=test")] == [2, 1]
    with pytest.raises(ValueError, match="has the option 'spilt'"):
        seen(f"datasets:{tmp_path}/saved?spilt=train")
    with pytest.raises(ValueError, match="cannot be opened"):
        seen("datasets:nobody/nothing")


def test_paths_in_rows_are_not_followed_out_of_their_data_set(tmp_path: Path):
    (tmp_path / "secret.png").write_bytes(png(1))
    table = rows(3)
    table["image"][1] = {"bytes": None, "path": str(tmp_path / "secret.png")}
    (tmp_path / "set").mkdir()
    datasets.Dataset.from_dict(table).to_parquet(str(tmp_path / "set" / "0.parquet"))
    for spec in (f"{tmp_path}/set", f"datasets:{tmp_path}/set"):
        assert [key for key, _, _ in seen(spec, limit_bad_share=0.4)] == ["k0", "k2"]


class Hub(MemoryFileSystem):
    """Stands in for the hub's file system."""

    protocol = "hf"
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.removeprefix("hf://"))


def test_paths_in_rows_are_followed_to_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog):
    monkeypatch.setitem(_registry, "hf", Hub)
    with fsspec.open("hf://datasets/nobody/set@main/1.png", "wb") as file:
        file.write(png(7))
    table = rows(3) | {"id": [None] * 3}
    for row, name in ((1, "1.png"), (2, "gone.png")):
        table["image"][row] = {"bytes": None, "path": f"hf://datasets/nobody/set@main/{name}"}
    (tmp_path / "set").mkdir()
    for name in "ab":
        datasets.Dataset.from_dict(table).to_parquet(str(tmp_path / "set" / f"{name}.parquet"))
    own = [("000000", "caption 0", 0), ("000001", "caption 1", 7)]
    expected = [(f"{part}-{number}", caption, color) for part in ("00000", "00001") for number, caption, color in own]
    for spec in (f"datasets:{tmp_path}/set", units(f"datasets:{tmp_path}/set")):
        assert seen(spec, limit_bad_share=0.4) == expected
    assert "row 2: FileNotFoundError" in caplog.text


@pytest.mark.parametrize("num_blocks", range(1, 8))
def test_a_tar_cut_anywhere_is_damaged(tmp_path: Path, num_blocks: int):
    """Also between two members, where tarfile sees nothing amiss, and in the middle of a header."""
    path = Path(write_tar(tmp_path / "x.tar", ["a", "b"]))
    whole = path.read_bytes()
    for cut in (512 * num_blocks, 512 * num_blocks + 100):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="could not be read"):
            seen(path)
        with pytest.raises(ValueError, match="damaged or cut short"):
            count_samples(path)


def test_names_and_texts_that_are_no_unicode_are_bad_samples(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = write_tar(tmp_path / "x.tar", ["a", "b\udcff", "c"])
    assert [key for key, _, _ in seen(path, limit_bad_share=0.4)] == ["a", "c"]
    assert "skipped b\\udcff in" in caplog.text


BAD_JSON = [{"caption": "\ud800"}, {"captions": "one"}, {"captions": ["a", 1]}, {"conversations": "hello"}]


@pytest.mark.parametrize("metadata", BAD_JSON)
def test_metadata_that_no_store_could_hold_is_a_bad_sample(folder: Path, metadata: dict):
    (folder / "b.json").write_text(json.dumps(metadata))
    assert len(seen(folder, limit_bad_share=0.4)) == 2


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 20), st.integers(0, 3), st.integers(0, 9))
def test_threads_change_no_order(num: int, num_workers: int, ahead: int):
    assert list(ordered_map(lambda x: x * x, range(num), num_workers, ahead)) == [x * x for x in range(num)]


@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("seed", [None, 4])
def test_a_stream_continues_anywhere_without_decoding_what_is_behind(tmp_path, monkeypatch, world_size, seed):
    monkeypatch.setattr("data.shards.SHUFFLE_BUFFER", 5)
    shards = [write_tar(tmp_path / f"{s}.tar", [f"{s}{i}" for i in range(6)]) for s in range(2)]
    order = Order(seed, 1, world_size - 1, world_size)
    whole = list(iterate_prepared(shards, lambda sample: sample.key, order, num_workers=2))
    for start in range(len(whole) + 1):
        decoded = []
        rest = list(iterate_prepared(shards, lambda s: decoded.append(s.key) or s.key, order, start=start))  # noqa: B023
        assert rest == whole[start:] and len(decoded) == len(rest)


def test_augmentation_depends_on_seed_epoch_and_key_alone():
    image = Image.fromarray(np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3))
    config = AugmentConfig(flip=0.5, min_scale=0.5)
    made = [Augment(config, 1, epoch)(image, key).tobytes() for epoch in range(3) for key in "ab"]
    again = [Augment(config, 1, epoch)(image, key).tobytes() for epoch in range(3) for key in "ab"]
    assert made == again and len(set(made)) > 3
    assert Augment(AugmentConfig(), 1, 0)(image, "a").tobytes() == image.tobytes()
    mirrored = Augment(AugmentConfig(flip=1.0), 1, 0)(image, "a")
    assert np.array_equal(np.asarray(mirrored), np.asarray(image)[:, ::-1])
    with pytest.raises(ValueError, match="min_scale"):
        AugmentConfig(min_scale=0)


def test_what_a_config_may_name():
    check_spec(["a.tar", "pipe:cat b.tar"], "source")
    for spec in ("", [], 3, [1]):
        with pytest.raises(ValueError, match="source must be"):
            check_spec(spec, "source")
