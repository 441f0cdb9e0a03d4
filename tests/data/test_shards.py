"""Streaming of raw samples: layouts, order, ranks, and everything that can be wrong with a tar."""

import io
import json
import logging
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from data import shards
from data.shard_names import expand_shards
from data.shards import Order, count_samples, iterate_prepared, iterate_shards, select_samples, spread_samples, units


def png(color: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), color).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, members: list[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def good(*keys: str) -> list[tuple[str, bytes]]:
    return [member for key in keys for member in ((f"{key}.png", png()), (f"{key}.txt", f"caption {key}".encode()))]


def keys(*args, **options) -> list[str]:
    return [sample.key for sample in iterate_shards(*args, **options)]


@pytest.fixture
def many(tmp_path: Path) -> str:
    """Four shards with five samples each."""
    for shard in range(4):
        write_tar(tmp_path / f"s-{shard:06d}.tar", good(*(f"{shard}{index}" for index in range(5))))
    return str(tmp_path / "s-{000000..000003}.tar")


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_layout_of_img2dataset_and_json_captions(tmp_path: Path, mode: str):
    members = [
        ("a.jpg", png("blue")),
        ("a.json", json.dumps({"caption": "from json", "n": 1}).encode()),
        ("a.txt", b" a caption \n"),
        ("dir/b.PNG", png()),
        ("dir/b.json", '{"caption": "grün"}'.encode()),
    ]
    path = write_tar(tmp_path / "x.tar", members, mode)
    first, second = iterate_shards(path)
    assert (first.key, first.caption, first.metadata["n"], first.shard) == ("a", "a caption", 1, str(path))
    assert first.image.getpixel((0, 0)) == (0, 0, 255)
    assert (second.key, second.caption) == ("dir/b", "grün")


def test_names_that_leave_their_folder_are_only_names(tmp_path: Path):
    inside = tmp_path / "in"
    inside.mkdir()
    write_tar(inside / "x.tar", good("../../evil", "/etc/evil"))
    assert keys(inside / "x.tar") == ["../../evil", "/etc/evil"]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["in", "x.tar"]


BAD = {
    "truncated image": [("bad.png", png()[:40]), ("bad.txt", b"x")],
    "no image": [("bad.txt", b"x")],
    "no caption": [("bad.png", png())],
    "blank caption": [("bad.png", png()), ("bad.txt", b" \n")],
    "invalid utf-8": [("bad.png", png()), ("bad.txt", b"\xff\xfe")],
    "broken json": [("bad.png", png()), ("bad.json", b"{")],
    "deep json": [("bad.png", png()), ("bad.json", b"[" * 100_000)],
    "json list": [("bad.png", png()), ("bad.json", b"[]")],
    "caption is a number": [("bad.png", png()), ("bad.json", b'{"caption": 3}')],
}


@pytest.mark.parametrize("members", BAD.values(), ids=BAD.keys())
def test_bad_samples_are_skipped_and_logged_with_shard_and_key(tmp_path: Path, members, caplog):
    path = write_tar(tmp_path / "x.tar", [*good("a"), *members, *good("z")])
    with caplog.at_level(logging.WARNING):
        assert keys(path, limit_bad_share=0.5) == ["a", "z"]
    assert f"skipped bad in {path}" in caplog.text
    assert "skipped 1 of 3 samples" in caplog.text


def test_too_many_bad_samples_name_the_worst_shard(tmp_path: Path):
    write_tar(tmp_path / "a.tar", [*good("1", "2", "3"), ("4.txt", b"x")])
    write_tar(tmp_path / "b.tar", [*good("5"), ("6.txt", b"x"), ("7.txt", b"x")])
    with pytest.raises(ValueError, match=r"3 of 7 samples .* share of 0\.01.*worst shard is .*b\.tar with 2"):
        keys(tmp_path)
    assert keys(tmp_path, limit_bad_share=0.43) == ["1", "2", "3", "5"]


def test_a_bad_start_of_a_long_run_stops_it_early(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(shards, "_CHECK_EVERY", 2)
    path = write_tar(tmp_path / "x.tar", [("a.txt", b"x"), *good("b", "c", "d", "e")])
    seen = []
    with pytest.raises(ValueError, match="1 of 2 samples"):
        seen.extend(sample.key for sample in iterate_shards(path))
    assert len(seen) <= 1


def test_damage_between_two_samples_steps_over_no_check(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(shards, "_CHECK_EVERY", 3)
    write_tar(tmp_path / "0.tar", good("a", "b"))
    (tmp_path / "1.tar").write_bytes(b"no tar" * 100)
    write_tar(tmp_path / "2.tar", good("c", "d"))
    with pytest.raises(ValueError, match="1 of 4 samples"):
        keys(tmp_path)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_truncated_tar_gives_what_it_still_holds(tmp_path: Path, mode: str, caplog: pytest.LogCaptureFixture):
    path = write_tar(tmp_path / "x.tar", [*good("a", "b"), ("c.png", bytes(range(256)) * 400)], mode)
    path.write_bytes(path.read_bytes()[: 6000 if mode == "w" else -200])
    found = keys(path, limit_bad_share=0.8)
    assert found in (["a"], ["a", "b"])
    assert f"in {path}: " in caplog.text and "(it gave 1 samples before)" in caplog.text
    with pytest.raises(ValueError, match=r"x\.tar with"):
        keys(path)


@pytest.mark.parametrize("shuffle_seed", [None, 0])
def test_a_resumed_stream_counts_what_was_good_before_it(tmp_path: Path, shuffle_seed):
    """And of ranks that all read the damaged shard, one counts it, in another epoch another."""
    path = write_tar(tmp_path / "0.tar", good(*(f"a{i}" for i in range(9))))
    path.write_bytes(path.read_bytes()[:-6000])
    specs = [path, write_tar(tmp_path / "1.tar", good(*(f"b{i}" for i in range(9))))]

    def rest(start: int, order: Order, limit: float) -> int:
        return len(list(iterate_prepared(specs, lambda sample: sample, order, start=start, limit_bad_share=limit)))

    whole = rest(0, Order(shuffle_seed), 0.1)
    assert 9 < whole < 18 and rest(whole - 1, Order(shuffle_seed), 0.1) == 1
    with pytest.raises(ValueError, match=f"1 of {whole + 1} samples"):
        rest(whole - 1, Order(shuffle_seed), 0.05)
    for epoch in range(3):
        assert sum(rest(0, Order(shuffle_seed, epoch, rank, 3), (rank == epoch) / 4) for rank in range(3)) == whole


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_members_and_headers_that_unpack_to_too_much_are_not_read(tmp_path: Path, mode: str, monkeypatch, caplog):
    monkeypatch.setattr("data.raw_sample.MAX_BYTES", 5000)
    monkeypatch.setattr("data.read_tar.MAX_BYTES", 5000)
    bombs = [("b.png", png()), ("b.txt", bytes(6000)), ("c.png", png() + bytes(6000)), ("c.txt", b"c")]
    path = write_tar(tmp_path / "x.tar", [*good("a"), *bombs, ("d.npy", bytes(6000)), *good("d")], mode)
    assert keys(path, limit_bad_share=0.5) == ["a", "d"]  # what nothing reads may be long
    for key, size in (("b", 6000), ("c", len(png()) + 6000)):
        assert f"skipped {key} in {path}: a file of it has {size}" in caplog.text
    write_tar(path, [*good("a"), ("x" * 6000 + ".txt", b""), *good("z")], mode)
    assert keys(path, limit_bad_share=0.5) == ["a"] and "a header of 60" in caplog.text


def test_a_file_that_is_no_tar(tmp_path: Path):
    (tmp_path / "x.tar").write_bytes(b"hello" * 1000)
    with pytest.raises(ValueError, match="1 of 1 samples"):
        keys(tmp_path / "x.tar")


def test_order_depends_on_seed_and_epoch_alone(many: str):
    plain = keys(many)
    assert plain == sorted(plain) and len(plain) == 20
    shuffled = keys(many, shuffle_seed=1, epoch=0)
    assert shuffled == keys(many, shuffle_seed=1, epoch=0) != plain
    assert sorted(shuffled) == plain
    assert shuffled != keys(many, shuffle_seed=1, epoch=1)
    assert shuffled != keys(many, shuffle_seed=2, epoch=0)


def test_the_shuffle_window_is_bounded_and_loses_nothing(many: str, monkeypatch):
    monkeypatch.setattr(shards, "SHUFFLE_BUFFER", 3)
    shuffled = keys(many, shuffle_seed=0)
    assert sorted(shuffled) == sorted(keys(many)) and shuffled != keys(many)


@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 7])
def test_ranks_share_the_samples_without_overlap(many: str, world_size: int, seed):
    parts = [keys(many, shuffle_seed=seed, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert sorted(key for part in parts for key in part) == keys(many)
    assert all(parts)


def test_a_plain_folder_of_images(tmp_path: Path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.jpg").write_bytes(png())
    (tmp_path / "sub" / "a.PNG").write_bytes(png())
    (tmp_path / "b.txt").write_text("captioned")
    (tmp_path / "readme.md").write_text("not an image")
    assert [(s.key, s.caption) for s in iterate_shards(tmp_path)] == [("b", "captioned"), ("sub/a", "")]


def test_expansion(many: str, tmp_path: Path):
    four = [str(tmp_path / f"s-{index:06d}.tar") for index in range(4)]
    assert expand_shards(many) == expand_shards(str(tmp_path / "*.tar")) == expand_shards(tmp_path) == four
    assert expand_shards([Path(four[2]), four[0]]) == [four[2], four[0]]
    assert expand_shards(f"{four[3]}, {tmp_path}/s-{{000000,000001}}.tar") == [four[3], four[0], four[1]]
    with pytest.raises(FileNotFoundError, match=r"no shard or folder matches .*s-000004\.tar"):
        expand_shards(str(tmp_path / "s-{000003..000004}.tar"))
    with pytest.raises(FileNotFoundError, match="nothing"):
        expand_shards("nothing-*.tar")
    with pytest.raises(ValueError, match="unbalanced"):
        expand_shards("s-{1..")


def test_lists_and_indices_beside_the_tars_or_pictures_of_a_folder_are_no_shards(many: str, tmp_path: Path):
    for name in ("s-000000.parquet", "s-000000_stats.json", "s-000000.tar.idx"):
        (tmp_path / name).touch()
    assert expand_shards(tmp_path) == expand_shards(many)
    (tmp_path / "files" / "00000").mkdir(parents=True)
    (tmp_path / "files" / "00000.parquet").touch()
    assert expand_shards(tmp_path / "files") == [str(tmp_path / "files")]


def test_a_pipe_is_a_command_that_prints_a_tar(tmp_path: Path, many: str, monkeypatch: pytest.MonkeyPatch):
    assert keys(f"pipe:cat {tmp_path}/s-{{000000..000001}}.tar") == keys(many)[:10]
    long = f"pipe:true {'x' * 300}; cat {tmp_path}/s-000000.tar"  # no file can have such a name
    assert units(long) == [long] and keys(long) == keys(many)[:5]
    assert expand_shards(",".join([f"{tmp_path}/s-000000.tar"] * 99)) == [f"{tmp_path}/s-000000.tar"] * 99
    assert keys([f"pipe:gzip -c < {tmp_path}/s-000002.tar", f"{tmp_path}/s-000003.tar"]) == keys(many)[10:]
    with pytest.raises(ValueError, match="1 of 6 samples"):  # it printed all, and then failed
        keys(f"pipe:cat {tmp_path}/s-000000.tar; exit 3")
    assert next(iter(iterate_shards(f"pipe:cat {tmp_path}/s-000000.tar"))).key == "00"  # left early, it is ended


def test_why_a_command_failed_is_logged(caplog: pytest.LogCaptureFixture):
    with pytest.raises(ValueError, match="1 of 1 samples"):
        keys("pipe:exit 7")
    assert "the command ended with exit code 7" in caplog.text


def test_files_are_never_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_tar(tmp_path / "pipe:touch owned.tar", good("a"))
    assert keys("*.tar") == keys(".") == ["a"]
    assert not (tmp_path / "owned.tar").exists()


def test_selected_samples_keep_their_place_and_need_no_caption(tmp_path: Path):
    first = [("a.png", png()), ("a.cls", b"7"), ("b.png", png()[:40]), ("b.cls", b"8"), *good("c")]
    write_tar(tmp_path / "0.tar", first)
    (tmp_path / "1" / "n01").mkdir(parents=True)
    (tmp_path / "1" / "n01" / "d.png").write_bytes(png())
    spec = [tmp_path / "0.tar", tmp_path / "1"]
    assert count_samples(spec) == 4
    chosen = {place: sample for place, sample in select_samples(spec, lambda place: place != 2)}
    assert {place: sample.key for place, sample in chosen.items()} == {0: "a", 3: "n01/d"}  # b cannot be read
    assert chosen[0].metadata == {"cls": 7} and chosen[0].caption == ""
    assert chosen[3].metadata == {"folder": "n01"}


def test_only_selected_pictures_are_decoded(many: str, monkeypatch: pytest.MonkeyPatch):
    decoded = []
    monkeypatch.setattr("data.raw_sample.load_image", decoded.append)
    assert [place for place, _ in select_samples(many, {3, 17}.__contains__)] == [3, 17] and len(decoded) == 2


def test_samples_of_a_sheet_are_spread_over_all_shards(many: str, tmp_path: Path):
    assert [sample.key for sample in spread_samples(many, 4)] == ["00", "10", "20", "30"]
    assert len(spread_samples(many, 99)) == 20
    with pytest.raises(ValueError, match="no usable image"):
        spread_samples(str(write_tar(tmp_path / "bad.tar", [("a.png", b"no picture")])), 4)


def test_a_tar_that_is_cut_short_is_not_counted(tmp_path: Path):
    path = write_tar(tmp_path / "x.tar.gz", good(*"abcdefgh"), "w:gz")
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(ValueError, match=r"x\.tar\.gz is damaged or cut short"):
        count_samples(path)


def test_every_kind_of_bad_picture_is_skipped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    import numpy as np

    def encoded(image: Image.Image, kind: str) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, kind)
        return buffer.getvalue()

    bad = {
        "truncated.png": png()[:-30],
        "huge.png": encoded(Image.new("1", (20_000, 20_000)), "PNG"),
        "nan.tiff": encoded(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF"),
        "empty.jpg": b"",
    }
    members = [member for name, data in bad.items() for member in ((name, data), (f"{name.split('.')[0]}.txt", b"x"))]
    path = write_tar(tmp_path / "x.tar", good("a") + members + good("b"))
    with caplog.at_level(logging.WARNING):
        assert keys(path, limit_bad_share=0.9) == ["a", "b"]
    assert "skipped 4 of 6 samples" in caplog.text
    for name in bad:
        assert f"skipped {name.split('.')[0]} in" in caplog.text
