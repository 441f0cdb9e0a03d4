"""The plugin against lmms-eval's own registry and requests, with a made-up responder; only where lmms-eval is there."""

from types import SimpleNamespace

import pytest
from PIL import Image

pytest.importorskip("lmms_eval")

from lmms_eval.models.registry_v2 import ModelRegistryV2

from eval.lmms_eval_plugin import MANIFEST, DualTokenLmms


def test_answers_come_in_the_order_of_the_requests_and_are_cut():
    registry = ModelRegistryV2()
    registry.register_manifest(MANIFEST)
    assert registry.get_model_class("dualtoken") is DualTokenLmms
    model = DualTokenLmms.__new__(DualTokenLmms)
    model.respond = lambda asked, n: [(i, f"{asked[i].prompt} {n}\n\nmore") for i in reversed(range(len(asked)))]
    model.task_dict = {"t": {"val": [Image.new("RGB", (4, 4))] * 3}}
    requests = [
        SimpleNamespace(args=(f"<image>\nQ{i}", {"max_new_tokens": n, "until": ["\n\n"]}, lambda d: [d], i, "t", "val"))
        for i, n in enumerate((8, 4, 8))
    ]
    assert model.generate_until(requests) == ["Q0 8", "Q1 4", "Q2 8"]
    with pytest.raises(ValueError, match="no likelihoods"):
        model.loglikelihood(requests)
