"""DualToken as a model of lmms-eval, through the entry point `lmms_eval.models` (extra `eval`).

    python -m lmms_eval --model dualtoken --model_args pretrained=runs/full/instruct/export --tasks mme --batch_size 32

Decoding is greedy and answers are cut at the task's `until`; prompts are lmms-eval's own, so that scores may differ
from those of `dualtoken evaluate`.
"""

import io
from typing import Any

from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest

from eval.benchmark import Question
from eval.load import load
from eval.responder import Responder

MANIFEST = ModelManifest(model_id="dualtoken", simple_class_path="eval.lmms_eval_plugin.DualTokenLmms")


class DualTokenLmms(lmms):
    def __init__(self, pretrained: str, batch_size: int | str = 1, **_: Any):
        super().__init__()
        self.respond = Responder(load(pretrained), int(batch_size))

    def generate_until(self, requests: list[Any]) -> list[str]:
        """One answer a request, in their order; requests of one answer length share batches."""
        answers = [""] * len(requests)
        by_length: dict[int, list[int]] = {}
        for i, request in enumerate(requests):
            by_length.setdefault(int(request.args[1].get("max_new_tokens", 128)), []).append(i)
        for length, members in by_length.items():
            questions = [self._question(*requests[i].args) for i in members]
            for place, text in self.respond(questions, length):
                answers[members[place]] = _cut(text, requests[members[place]].args[1].get("until") or [])
        return answers

    def _question(self, context: str, _: dict, doc_to_visual: Any, doc_id: Any, task: str, split: str) -> Question:
        pictures = doc_to_visual(self.task_dict[task][split][doc_id])
        if len(pictures) != 1:
            raise ValueError(f"task {task} shows {len(pictures)} pictures with a question: the model answers about one")
        data = io.BytesIO()
        pictures[0].convert("RGB").save(data, "PNG")
        prompt = context.replace("<image>", "").strip()
        return Question(prompt, data.getvalue(), prompt, "", doc_id, False, None)

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        raise ValueError("dualtoken scores no likelihoods under lmms-eval: choose the task's generating variant")

    def generate_until_multi_round(self, requests: list[Any]) -> list[str]:
        raise ValueError("dualtoken answers single questions under lmms-eval: choose a task of one round")


def _cut(text: str, until: str | list[str]) -> str:
    for stop in [until] if isinstance(until, str) else until:
        text = text.split(stop)[0] if stop else text
    return text.strip()
