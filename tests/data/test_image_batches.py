"""Batches of images: every epoch a permutation, every state exact, in memory and streamed alike."""

import json
import tarfile
from io import BytesIO

import pytest
from PIL import Image

from data.image_batches import ImageDataConfig, ImageSet, open_batches, permuted_batches
from data.images import ImageTransform

NUM_IMAGES = 7


@pytest.fixture
def shards(tmp_path) -> str:
    for shard in range(2):
        with tarfile.open(tmp_path / f"s-{shard}.tar", "w") as tar:
            for i in range(shard, NUM_IMAGES, 2):
                picture = BytesIO()
                Image.new("RGB", (8, 8), (30 * i, 0, 0)).save(picture, "png")
                description = json.dumps({"caption": f"picture {i}"}).encode()
                for ending, content in (("png", picture.getvalue()), ("json", description)):
                    member = tarfile.TarInfo(f"{i}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, BytesIO(content))
    return str(tmp_path / "s-*.tar")


def keys(batches, num: int) -> list[str]:
    return [m["key"] for _ in range(num) for m in next(batches).metadata]


@pytest.mark.parametrize("in_memory", [True, False])
def test_epochs_are_permutations_and_states_exact(shards, in_memory):
    config = ImageDataConfig(shards=shards, batch_size=2, seed=3, in_memory=in_memory)
    batches = open_batches(config, ImageTransform(4))
    for _ in range(2):
        assert len(set(keys(batches, 3))) == 6  # one of seven is left over
    assert keys(batches, 1) and batches.state_dict() == {"epoch": 2, "start": 2 if not in_memory else 1}
    state = dict(batches.state_dict())
    upcoming = keys(batches, 7)
    other = open_batches(config, ImageTransform(4))
    other.load_state_dict(state)
    assert keys(other, 7) == upcoming


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_batch_larger_than_the_data_is_refused(shards, in_memory):
    config = ImageDataConfig(shards=shards, batch_size=8, in_memory=in_memory)
    with pytest.raises(ValueError, match="batch"):
        next(open_batches(config, ImageTransform(4)))


def test_ranks_see_together_what_one_process_sees(shards):
    config = ImageDataConfig(shards=shards, batch_size=2, seed=3)
    whole = open_batches(ImageDataConfig(shards=shards, batch_size=4, seed=3), ImageTransform(4))
    ranks = [open_batches(config, ImageTransform(4), rank, 2) for rank in range(2)]
    for _ in range(3):  # an epoch is one batch of four
        assert keys(whole, 1) == [key for batches in ranks for key in keys(batches, 1)]
    assert {batches.state_dict()["epoch"] for batches in [whole, *ranks]} == {2}
    with pytest.raises(ValueError, match="in 4 process"):
        open_batches(config, ImageTransform(4), 0, 4)


def test_mirrored_pictures_are_mirrored_each_once(shards):
    """With flip=1 all are; the set in memory, which later epochs read again, stays as it is."""
    images, mirrored = ImageSet(shards, ImageTransform(4)), ImageSet(shards, ImageTransform(4))
    images.pixels[..., 0] = 0  # a left edge in pictures of one colour
    mirrored.pixels[..., 3] = 0
    plain, flipped = permuted_batches(mirrored, 3, 0), permuted_batches(images, 3, 0, flip=1.0)
    some = permuted_batches(images, 3, 0, flip=0.5)
    num_left = 0
    for _ in range(5):
        expected, found, mixed = next(plain), next(flipped), next(some)
        assert found.pixel_values.equal(expected.pixel_values) and found.metadata == expected.metadata
        num_left += (mixed.pixel_values[..., 0] == -1).all(dim=(1, 2)).sum().item()
    assert 0 < num_left < 15


def test_ranks_stream_different_images(shards):
    config = ImageDataConfig(shards=shards, batch_size=1, seed=3, in_memory=False)
    first, second = (keys(open_batches(config, ImageTransform(4), rank, 2), 3) for rank in range(2))
    assert len({*first, *second}) == 6


def test_a_rank_whose_shard_of_an_epoch_is_small_or_has_a_bad_picture_goes_on(shards, tmp_path):
    """Of 3 and of 4 + 1 images: batches of four come from the larger shard alone, whichever rank has it."""
    with tarfile.open(tmp_path / "s-0.tar", "a") as tar:
        tar.addfile(tarfile.TarInfo("bad.png"))
    config = ImageDataConfig(shards=shards, batch_size=4, in_memory=False)
    for rank in range(2):
        batches = open_batches(config, ImageTransform(4), rank, 2)
        assert set(keys(batches, 6)) == set("0246") and batches.epoch > 6
    with pytest.raises(ValueError, match="could not be read"):
        keys(open_batches(config, ImageTransform(4)), 3)


def test_pixels_survive_the_eight_bits(shards):
    images = ImageSet(shards, ImageTransform(4))
    batch = images.batch(list(range(NUM_IMAGES)))
    reds = {m["key"]: pixels[0, 0, 0].item() for pixels, m in zip(*batch, strict=True)}
    assert all(abs(reds[str(i)] - (30 * i / 127.5 - 1)) < 0.005 for i in range(NUM_IMAGES))
