import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import heads.cross_entropy
from heads.cross_entropy import IGNORE, DepthClassifiers, TextClassifier, chunked_cross_entropy

M, D, K, W = 11, 3, 8, 16


@pytest.fixture
def small_chunks(monkeypatch):
    """Four rows at a time, so that eleven rows end in a chunk of three."""
    monkeypatch.setattr(heads.cross_entropy, "CHUNK_NUMBERS", 4 * K)
    monkeypatch.setattr(heads.cross_entropy, "MIN_CHUNK_ROWS", 1)


def inputs(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(M, D, W, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(D, K, W, generator=generator).to(dtype).requires_grad_()
    targets = torch.randint(K, (M, D), generator=generator)
    targets[2], targets[7, 1] = IGNORE, IGNORE
    return states, weight, targets


def plain(states, weight, targets):
    logits = torch.einsum("mdw,dkw->dkm", states, weight).float()
    losses = torch.stack([F.cross_entropy(logits[d].T, targets[:, d], reduction="sum") for d in range(D)])
    z = (logits.logsumexp(1).square() * (targets.T != IGNORE)).sum(1)
    return losses, z, torch.stack([(logits[d].argmax(0) == targets[:, d]).sum() for d in range(D)])


@pytest.mark.parametrize("z_loss", [0.0, 0.2])
def test_equals_plain_cross_entropy_in_loss_and_gradients(small_chunks, z_loss):
    scale = torch.tensor([1.0, -2.0, 0.3])
    states, weight, targets = inputs()
    ours = chunked_cross_entropy(states, weight, targets, z_loss)
    gradients = torch.autograd.grad((ours.loss * scale).sum(), (states, weight))
    loss, z, correct = plain(states, weight, targets)
    by_autograd = torch.autograd.grad(((loss + z_loss * z) * scale).sum(), (states, weight))
    torch.testing.assert_close((*ours, *gradients), (loss, z, correct, *by_autograd))
    assert not ours.z.requires_grad


def test_a_second_backward_pass_is_refused(small_chunks):
    """The first one scales the gradients in place."""
    states, weight, targets = inputs()
    loss = chunked_cross_entropy(states, weight, targets).loss.sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_frozen_classifiers_and_no_grad(small_chunks):
    states, weight, targets = inputs()
    expected, *_ = plain(states, weight, targets)
    chunked_cross_entropy(states, weight.detach(), targets).loss.sum().backward()
    (by_states,) = torch.autograd.grad(expected.sum(), states)
    torch.testing.assert_close(states.grad, by_states)
    with torch.no_grad():
        loss = chunked_cross_entropy(states, weight, targets).loss
    assert not loss.requires_grad
    torch.testing.assert_close(loss, expected.detach())


def test_bfloat16_keeps_a_float32_log_sum_exp_and_weight_gradient(small_chunks):
    """Each of 2,000 equal rows adds the same to the gradient; a bfloat16 sum would stop growing after some 256."""
    row = torch.randn(1, 1, W, generator=torch.Generator().manual_seed(1)).bfloat16()
    weight = torch.zeros(1, K, W, dtype=torch.bfloat16, requires_grad=True)
    loss = chunked_cross_entropy(row.repeat(2000, 1, 1), weight, torch.zeros(2000, 1, dtype=torch.int64)).loss
    torch.testing.assert_close(loss, torch.tensor([2000 * math.log(K)]), rtol=1e-4, atol=0)
    loss.sum().backward()
    torch.testing.assert_close(weight.grad[0, 1].float(), 2000 / K * row[0, 0].float(), rtol=0.01, atol=0.01)


def test_never_holds_all_logits(small_chunks):
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, (tuple, list)) else [out]:
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.numel())
            return out

    num_rows = 200
    states, weight = torch.randn(num_rows, D, 2, requires_grad=True), torch.randn(D, K, 2, requires_grad=True)
    with Watch():
        loss = chunked_cross_entropy(states, weight, torch.zeros(num_rows, D, dtype=torch.int64)).loss
        loss.sum().backward()
    assert largest == states.numel() < num_rows * K


def test_rows_that_are_all_ignored_give_zero_gradients():
    states, weight, targets = inputs()
    chunked_cross_entropy(states, weight, torch.full_like(targets, IGNORE)).loss.sum().backward()
    assert not states.grad.any() and not weight.grad.any()


def test_logits_of_one_depth_are_those_of_the_loss():
    classifiers = DepthClassifiers(D, K, W)
    states, _, targets = inputs()
    losses = [F.cross_entropy(classifiers.logits(states[:, d], d), targets[:, d], reduction="sum") for d in range(D)]
    torch.testing.assert_close(classifiers(states, targets).loss, torch.stack(losses))


def test_text_classifier_is_the_linear_layer_that_it_replaces():
    linear = nn.Linear(W, K, bias=False)
    classifier = TextClassifier.sharing(linear)
    states, targets = torch.randn(5, W), torch.randint(K, (5,))
    assert classifier.weight is linear.weight
    torch.testing.assert_close(classifier(states), linear(states))
    expected = F.cross_entropy(linear(states), targets, reduction="sum")
    torch.testing.assert_close(classifier(states, targets).loss, expected.unsqueeze(0))
