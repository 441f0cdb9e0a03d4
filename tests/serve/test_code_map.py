import numpy as np
import torch

from serve.code_map import code_map, palette, randomised, shuffled
from tokenizer import DualCodes


def codebook(num: int = 64) -> torch.Tensor:
    return torch.randn(num, 4, generator=torch.Generator().manual_seed(0))


def test_similar_code_vectors_have_similar_colours():
    vectors = codebook()
    near = vectors + 0.001 * torch.randn(vectors.shape, generator=torch.Generator().manual_seed(1))
    colors = palette(torch.cat([vectors, near])).int()
    distance = (colors[:64, None] - colors[None, 64:]).abs().sum(-1)  # int[64, 64]
    assert (distance.argmin(1) == torch.arange(64)).float().mean() > 0.9
    assert len(colors.unique(dim=0)) > 100


def test_a_palette_is_that_of_its_codebook_alone():
    vectors = codebook()
    order = torch.randperm(64, generator=torch.Generator().manual_seed(2))
    assert (palette(vectors) == palette(vectors + 3)).all()  # only differences matter
    assert (palette(vectors[order]).int() - palette(vectors)[order].int()).abs().max() <= 1


def test_few_and_short_vectors_have_colours_too():
    assert palette(codebook(1)).shape == (1, 3) and palette(torch.ones(5, 4)).shape == (5, 3)
    assert palette(codebook()[:, :2]).unique(dim=0).shape == (64, 3)


def test_patches_are_squares_in_reading_order():
    colors = palette(codebook())
    codes = torch.tensor([5, 9, 5, 5, 63, 0])
    image = np.asarray(code_map(codes, colors, (2, 3), 30))
    assert image.shape == (20, 30, 3)
    for patch, code in enumerate(codes):
        row, column = divmod(patch, 3)
        square = image[row * 10 : row * 10 + 10, column * 10 : column * 10 + 10]
        assert (square == colors[code].numpy()).all()


def test_shuffling_moves_whole_patches_of_one_branch(unified):
    codes = DualCodes(*torch.randint(8, (2, 4, 3), generator=torch.Generator().manual_seed(0)))
    moved = shuffled(codes, "semantic")
    assert (moved.pixel == codes.pixel).all() and (moved.semantic != codes.semantic).any()
    assert sorted(moved.semantic.tolist()) == sorted(codes.semantic.tolist())
    assert (shuffled(codes, "semantic").semantic == moved.semantic).all()
    other = randomised(codes, "semantic", 8)
    assert (other.pixel == codes.pixel).all() and sorted(other.semantic.tolist()) != sorted(codes.semantic.tolist())
    decode = unified.tokenizer.decode
    assert (decode(moved.pixel[None]) == decode(codes.pixel[None])).all()
    assert (decode(shuffled(codes, "pixel").pixel[None]) != decode(codes.pixel[None])).any()
