import pytest
import torch
import torch.nn.functional as F

from mllm.config import LossWeights
from mllm.loss import LossSums, loss
from tokenizer import DualCodes


def test_weights_and_division_by_the_global_count():
    depths = torch.tensor([1.0, 2.0])
    count = torch.tensor(0)
    sums = LossSums(torch.tensor(5.0), count, count, depths, 10 * depths, count, count, count, 2 * depths, 4 * depths)
    assert loss(sums, LossWeights(), 2).item() == (5 + 3 + 30) / 2
    assert loss(sums, LossWeights(text=2, pixel=0.5, semantic=0), 4).item() == (10 + 1.5) / 4
    assert loss(sums, LossWeights(z_loss=0.25), 2).item() == (5 + 3 + 1.5 + 30 + 3) / 2
    with pytest.raises(ValueError, match="z_loss=-1"):
        LossWeights(z_loss=-1)


def test_z_loss_is_in_value_and_gradients_of_the_loss_and_in_no_reported_part(make_model, documents, pack):
    """Against autograd through all logits at once."""
    weights = LossWeights(pixel=0.5, z_loss=0.2)
    model, batch = make_model(loss_weights=weights), pack([[documents["draw"], documents["text"]]])
    sums = model(batch)
    total = loss(sums, weights, 3)
    gradients = torch.autograd.grad(total, list(model.parameters()))

    embeddings = model.embed(batch.input_ids, batch.image_mask, DualCodes(batch.pixel, batch.semantic))
    hidden_states = model.decode_packed(embeddings, batch.position_ids)[:, :-1]
    rows, labels = hidden_states[batch.labels[:, 1:] != -100], batch.labels[batch.labels != -100]
    expected = F.cross_entropy(model.llm.get_output_embeddings()(rows), labels, reduction="sum")
    for branch, weight in (("pixel", 0.5), ("semantic", 1.0)):
        head, codes = getattr(model, f"{branch}_head"), getattr(batch, branch)[0]
        states = head(hidden_states[batch.target_mask[:, 1:]], model.code_vectors(branch, codes))
        logits = torch.einsum("mdw,dkw->mdk", states, head.classifiers.weight)
        nll = F.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none").view(codes.shape).sum(0)
        expected = expected + weight * (nll.sum() + 0.2 * logits.logsumexp(-1).square().sum())
        torch.testing.assert_close(getattr(sums, f"{branch}_loss"), nll)
    torch.testing.assert_close(total, expected / 3)
    by_autograd = torch.autograd.grad(expected / 3, list(model.parameters()))
    torch.testing.assert_close(gradients, by_autograd, rtol=1e-4, atol=1e-5)


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
