"""Pre-tokenization: the codes of one plain pass, whatever the number of processes and however often it was stopped."""

import json
import tarfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from data.codes import CodeStore
from data.image_batches import ImageSet, describe
from data.images import ImageTransform
from data.shards import iterate_shards
from eval.responder import Responder
from tests.train.tiny_mllm import make_world, run_ranks
from tokenizer import DualTokenizer
from train.config import load_config
from train.picture_encoder import TokenizerEncoder
from train.pretokenize import PretokenizeConfig, main

SIZES = (5, 3, 4)  # images of each shard


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretokenize")
    make_world(folder)
    choices = folder / "tokenizer/config.json"
    choices.write_text(choices.read_text().replace('"crop": "center"', '"crop": "pad"'))  # pictures are no squares
    rng, index = np.random.default_rng(0), 0
    for shard, size in enumerate(SIZES):
        with tarfile.open(folder / f"s-{shard}.tar", "w") as tar:
            for _ in range(size):
                picture = BytesIO()
                Image.fromarray(rng.integers(256, size=(11, 9, 3), dtype=np.uint8)).save(picture, "png")
                caption = json.dumps({"caption": f"picture {index}", "n": index}).encode()
                for ending, content in (("png", picture.getvalue()), ("json", caption)):
                    member = tarfile.TarInfo(f"{index}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, BytesIO(content))
                index += 1
    return folder


@pytest.fixture
def config(folder, tmp_path) -> PretokenizeConfig:
    return PretokenizeConfig(
        tokenizer=str(folder / "tokenizer"),
        source=f"{folder}/s-*.tar",
        out=str(tmp_path / "codes"),
        batch_size=2,
        num_workers=2,
        precision="fp32",
    )


@torch.no_grad()
def assert_codes_of_a_plain_pass(config: PretokenizeConfig) -> None:
    tokenizer = DualTokenizer.from_pretrained(config.tokenizer)
    transform = ImageTransform(tokenizer.image_size, "pad")
    images = ImageSet(config.source, transform)
    store = CodeStore.open(config.out, tokenizer.tokenizer_id)
    assert len(store) == len(images) == sum(SIZES) and store.provenance["source"] == config.source
    for i, metadata in enumerate(images.metadata):
        codes = tokenizer.encode(images.batch([i]).pixel_values)
        np.testing.assert_array_equal(store.codes(i), [branch[0].numpy() for branch in codes])
        assert (store.key(i), store.captions(i)) == (str(i), [f"picture {i}"])
        assert store.metadata(i) == metadata
    assert load_config(PretokenizeConfig, Path(config.out, "config.yaml")) == config
    pictures = [sample.image for sample in iterate_shards(config.source)]
    for i, pair in enumerate(TokenizerEncoder(tokenizer, batch_size=2).encode(pictures)):  # as training does on the fly
        np.testing.assert_array_equal(store.codes(i), pair)
    assert Responder(SimpleNamespace(tokenizer=tokenizer), 1).transform == transform  # and a chat
    assert [path.name for path in Path(config.out).parent.iterdir()] == ["codes"]


def test_codes_are_those_of_a_plain_pass(config):
    main(config)
    assert_codes_of_a_plain_pass(config)


def test_no_more_than_one_batch_of_pictures_is_decoded_ahead(config, monkeypatch):
    num_decoded, num_ahead, num_encoded = 0, [], 0
    transform, encode = ImageTransform.__call__, DualTokenizer.encode

    def count_decoded(self, image):
        nonlocal num_decoded
        num_decoded += 1
        return transform(self, image)

    def count_encoded(self, pixel_values):
        nonlocal num_encoded
        num_ahead.append(num_decoded - num_encoded)
        num_encoded += len(pixel_values)
        return encode(self, pixel_values)

    monkeypatch.setattr(ImageTransform, "__call__", count_decoded)
    monkeypatch.setattr(DualTokenizer, "encode", count_encoded)
    main(replace(config, num_workers=0))
    assert len(num_ahead) == 7 and max(num_ahead) <= 3  # the batch, and the picture that tells the end of a shard
    num_decoded, num_ahead, num_encoded = 0, [], 0
    main(replace(config, out=f"{config.out}-2"))
    assert max(num_ahead) <= 2 + 2 * config.batch_size + 1  # the batch, two more that threads prepare


def test_pictures_are_decoded_while_the_tower_works(config, monkeypatch):
    """The first of the second batch waits for the tower, and the tower for it."""
    encode, is_at_work, is_decoded = DualTokenizer.encode, Event(), Event()

    def wait_for_the_tower(sample):
        if sample.key == "2":
            assert is_at_work.wait(10)
            is_decoded.set()
        return describe(sample)

    def wait_for_the_picture(self, pixel_values):
        is_at_work.set()
        assert is_decoded.wait(10)
        return encode(self, pixel_values)

    monkeypatch.setattr("train.pretokenize.describe", wait_for_the_tower)
    monkeypatch.setattr(DualTokenizer, "encode", wait_for_the_picture)
    main(config)


def test_a_stopped_run_continues_with_the_shard_it_was_at(config, monkeypatch):
    encode, num_calls = DualTokenizer.encode, 0

    def stop_in_the_second_shard(self, pixel_values):
        nonlocal num_calls
        num_calls += 1
        if num_calls == 5:
            raise KeyboardInterrupt
        return encode(self, pixel_values)

    monkeypatch.setattr(DualTokenizer, "encode", stop_in_the_second_shard)
    with pytest.raises(KeyboardInterrupt):
        main(config)
    assert not Path(config.out).exists()
    num_calls = 5
    main(config)
    assert num_calls == 5 + 2 + 2  # the batches of the second and the third shard
    monkeypatch.undo()
    assert_codes_of_a_plain_pass(config)


def test_two_processes_write_the_same_store(config):
    run_ranks(main, 2, config)
    assert_codes_of_a_plain_pass(config)


def test_broken_pictures_are_left_out_up_to_a_share(config, folder, tmp_path, monkeypatch):
    broken = tmp_path / "broken"
    broken.mkdir()
    Image.new("RGB", (8, 8), "red").save(broken / "good.png")
    (broken / "bad.png").write_bytes(b"no picture")
    (tmp_path / "torn.tar").write_bytes(b"no tar")
    config = replace(config, source=f"{tmp_path}/torn.tar,{broken},{folder}/s-0.tar")
    with pytest.raises(ValueError, match="raise limit_bad_share"):
        main(config)
    monkeypatch.setattr(DualTokenizer, "encode", None)  # what was read stays, and how much of it was bad
    with pytest.raises(ValueError, match=r"2 of 8 samples"):
        main(config)
    monkeypatch.undo()
    main(replace(config, limit_bad_share=0.3, verify=3))
    assert [CodeStore.open(config.out).key(i) for i in range(6)] == ["good", "0", "1", "2", "3", "4"]
