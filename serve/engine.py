"""What the model's thread does: batches of answers and of drawings, and dialogues, with results as they come."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, NamedTuple

import torch
from PIL import Image

from data.images import to_pil
from eval.pictures import encode_picture, preview
from heads.sampling import DrawSettings, SamplingConfig
from mllm.answer import replies
from mllm.decoding import inference
from mllm.dialogue import TextSampling, stream
from mllm.generate import stream_images
from mllm.messages import ContextLengthError, Message, read_messages
from mllm.pretrained import Unified
from mllm.prompts import Prompt
from mllm.text_stream import TextStream
from serve.batcher import Batcher, Done, Job, stop_unless_wanted
from serve.config import Limits
from tokenizer import DualCodes


@dataclass(frozen=True)
class ChatRequest:
    prompt: Prompt
    settings: DrawSettings
    seed: int
    max_new_tokens: int  # what the context leaves of what was asked for


@dataclass(frozen=True)
class DrawRequest:
    caption: str
    sampling: SamplingConfig
    seeds: list[int]
    preview_rows: int = 0  # a preview after so many rows of patches; 0 shows none


@dataclass(frozen=True)
class DialogueRequest:
    messages: list[Message]
    text: TextSampling
    sampling: SamplingConfig
    seed: int


class Answered(NamedTuple):
    num_tokens: int
    complete: bool  # ended by the model itself, not by a limit


class Preview(NamedTuple):
    """Drawings so far."""

    images: list[Image.Image]
    share: float  # of the patches that are drawn


class Engine:
    """A model and the thread that runs it. `submit_*` raise QueueFull; what they emit ends with `Done`."""

    def __init__(self, unified: Unified, limits: Limits, on_batch: Callable[[str, int], Any] | None = None) -> None:
        self.unified, self.limits, self.on_batch = unified, limits, on_batch
        self.model, self.vocabulary, self.tokenizer = unified
        self._seeing = Lock()
        self.batcher = Batcher(self._run, limits)

    def see(self, picture: Image.Image) -> DualCodes:
        """RGB -> int64[N, D] per branch; in any thread, one at a time and alone, so that its codes are its own."""
        with self._seeing:
            return encode_picture(self.unified, picture)

    def chat_request(
        self, messages: Sequence[Message], settings: DrawSettings, seed: int, max_new_tokens: int
    ) -> ChatRequest:
        """A conversation in tokens, so that its length is known before it waits; ValueError where it is too long."""
        prompt = read_messages(self.vocabulary, messages, self.model)
        room = self.model.llm.config.max_position_embeddings - len(prompt.ids)
        return ChatRequest(prompt, settings, seed, min(max_new_tokens, room))

    def check_drawing(self, request: DrawRequest) -> None:
        """Raises ValueError where the picture does not fit behind its prompt."""
        num_patches, context = self.model.visual.num_patches, self.model.llm.config.max_position_embeddings
        length = len(self.vocabulary.drawing_prompt(request.caption)) + num_patches
        if length > context:
            raise ContextLengthError(
                f"the prompt and a picture of {num_patches} patches are {length} tokens long, but the model's context "
                f"is {context}: shorten the prompt."
            )

    def submit_chat(self, request: ChatRequest, emit: Callable[[Any], None], deadline: float) -> Job:
        """Emits pieces of text, then Done(Answered)."""
        return self._submit(Job(("chat", request.settings), 1, request, emit, deadline))

    def submit_drawing(self, request: DrawRequest, emit: Callable[[Any], None], deadline: float) -> Job:
        """Emits previews, then Done(pictures)."""
        return self._submit(Job(("draw", request.sampling), len(request.seeds), request, emit, deadline))

    def submit_dialogue(self, request: DialogueRequest, emit: Callable[[Any], None], deadline: float) -> Job:
        """Emits the pieces of mllm/dialogue.py, then Done(None); alone, for it may draw anywhere."""
        return self._submit(Job(("dialogue", object()), 1, request, emit, deadline))

    def _submit(self, job: Job) -> Job:
        self.batcher.submit(job)
        return job

    def _run(self, jobs: list[Job]) -> None:
        kind = jobs[0].key[0]
        if self.on_batch is not None:
            self.on_batch(kind, sum(job.rows for job in jobs))
        {"chat": self._answer, "draw": self._draw, "dialogue": self._converse}[kind](jobs)

    def _answer(self, jobs: list[Job]) -> None:
        requests: list[ChatRequest] = [job.request for job in jobs]
        prompts = [request.prompt for request in requests]
        limits, seeds = [request.max_new_tokens for request in requests], [request.seed for request in requests]
        settings, streams = requests[0].settings, [TextStream(self.vocabulary) for _ in jobs]
        running = list(range(len(jobs)))
        with inference(self.model):
            for column in replies(self.model, self.vocabulary, prompts, limits, settings, seeds):
                stop_unless_wanted([jobs[i] for i in running])
                for i in list(running):
                    if (token := column[i]) is None:
                        running.remove(i)
                        _finish(jobs[i], streams[i])
                    elif piece := streams[i].push(token):
                        jobs[i].emit(piece)
        for i in running:
            _finish(jobs[i], streams[i])

    def _draw(self, jobs: list[Job]) -> None:
        requests: list[DrawRequest] = [job.request for job in jobs]
        captions = [request.caption for request in requests for _ in request.seeds]
        seeds = [seed for request in requests for seed in request.seeds]
        ends = torch.tensor([job.rows for job in jobs]).cumsum(0).tolist()
        own = [slice(end - job.rows, end) for job, end in zip(jobs, ends, strict=True)]
        height, width = self.model.visual.grid
        for codes in stream_images(self.model, self.vocabulary, captions, requests[0].sampling, seeds):
            stop_unless_wanted(jobs)
            num_rows = codes.pixel.shape[1] // width
            for job, images in zip(jobs, own, strict=True):
                every = job.request.preview_rows
                if num_rows == height:
                    # One by one: products of another shape round otherwise; a picture must not depend on its batch.
                    job.emit(Done([to_pil(self.tokenizer.decode(one[None])[0]) for one in codes.pixel[images]]))
                elif every and num_rows % every == 0:
                    shown = preview(self.tokenizer, codes.pixel[images])
                    job.emit(Preview([to_pil(image) for image in shown], num_rows / height))

    def _converse(self, jobs: list[Job]) -> None:
        (job,) = jobs
        request: DialogueRequest = job.request
        pieces = stream(self.model, self.vocabulary, request.messages, request.text, request.sampling, request.seed)
        for piece in pieces:
            stop_unless_wanted(jobs)
            job.emit(piece)
        job.emit(Done(None))


def _finish(job: Job, stream: TextStream) -> None:
    if piece := stream.rest():
        job.emit(piece)
    job.emit(Done(Answered(stream.num_tokens, complete=stream.num_tokens < job.request.max_new_tokens)))
