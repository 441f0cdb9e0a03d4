import torch

from mllm.config import LossWeights
from mllm.loss import LossSums, loss


def test_weights_and_division_by_the_global_count():
    depths = torch.tensor([1.0, 2.0])
    count = torch.tensor(0)
    sums = LossSums(torch.tensor(5.0), count, count, depths, 10 * depths, count, count, count)
    assert loss(sums, LossWeights(), 2).item() == (5 + 3 + 30) / 2
    assert loss(sums, LossWeights(text=2, pixel=0.5, semantic=0), 4).item() == (10 + 1.5) / 4


def test_shares_of_micro_batches_add_up_to_the_whole(model, documents, pack):
    """The same gradient however the global batch is cut (Eq. 6)."""
    draw, ask, text = documents["draw"], documents["ask"], documents["text"]
    whole = pack([[draw, text], [draw, ask], [text, text]])
    pieces = [pack([[draw, text]]), pack([[draw, ask], [text, text]])]
    pieces[0].pixel, pieces[0].semantic = whole.pixel[:1], whole.semantic[:1]
    pieces[1].pixel, pieces[1].semantic = whole.pixel[1:], whole.semantic[1:]
    num_targets = whole.num_targets
    assert num_targets == sum(piece.num_targets for piece in pieces)
    results = []
    for batches in ([whole], pieces):
        model.zero_grad()
        for batch in batches:
            loss(model(batch), LossWeights(), num_targets).backward()
        results.append([parameter.grad.clone() for parameter in model.parameters()])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_counts_are_the_targets_of_the_batch(model, documents, pack):
    batch = pack([[documents["draw"], documents["ask"]], [documents["text"]]])
    sums = model(batch)
    assert sums.text_count + sums.visual_count == batch.num_targets
