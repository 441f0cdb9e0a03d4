"""What the model's thread does: batches of answers and of drawings, with results while they are made.

A conversation is spelt here as in training, so that its length is known before it waits for its turn.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from data.images import ImageTransform, to_pil
from data.vocabulary import ImageSlot, Segment, Vocabulary
from heads.sampling import DrawSettings, SamplingConfig
from mllm.answer import Prompt, replies
from mllm.decoding import inference
from mllm.generate import generate_images
from mllm.pretrained import Unified
from serve.batcher import Batcher, Done, Job, stop_unless_wanted
from serve.config import Limits
from serve.text_stream import TextStream
from tokenizer import DualCodes


class Turn(NamedTuple):
    """What one side said: texts, and pictures as `Engine.see` gives them, in order."""

    role: str  # system | user | assistant
    segments: Sequence[str | DualCodes]


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


class Answered(NamedTuple):
    num_tokens: int
    complete: bool  # ended by the model itself, not by a limit


class Preview(NamedTuple):
    """Drawings so far; what is not drawn yet is grey."""

    images: list[Image.Image]
    share: float  # of the patches that are drawn


class Engine:
    """A model and the thread that runs it. `submit_*` raise QueueFull, and ValueError for what cannot be done."""

    def __init__(self, unified: Unified, limits: Limits, on_batch: Callable[[str, int], Any] | None = None) -> None:
        self.model, self.vocabulary, self.tokenizer = unified
        self.limits, self.on_batch = limits, on_batch
        self.transform = ImageTransform(self.tokenizer.image_size, self.tokenizer.config.crop)
        self._seeing = Lock()
        self.batcher = Batcher(self._run, limits)

    @property
    def context(self) -> int:
        return self.model.llm.config.max_position_embeddings

    def see(self, picture: Image.Image) -> DualCodes:
        """RGB -> int64[N, D] per branch; in any thread, one at a time and alone, so that its codes are its own."""
        pixel_values = self.transform(picture)
        with self._seeing:
            codes = self.tokenizer.encode(pixel_values[None].to(self.model.device))
        return DualCodes(*(branch[0] for branch in codes))

    def chat_request(
        self, turns: Sequence[Turn], settings: DrawSettings, seed: int, max_new_tokens: int
    ) -> ChatRequest:
        """A conversation in tokens; ValueError where it leaves no room for an answer."""
        ids = dialogue_ids(self.vocabulary, turns, self.model.visual.num_patches)
        room = self.context - len(ids)
        if room < 1:
            raise ValueError(
                f"the conversation is {len(ids)} tokens long, a picture {self.model.visual.num_patches} of them, but "
                f"the model's context is {self.context}: shorten it."
            )
        images = [segment for turn in turns for segment in turn.segments if not isinstance(segment, str)]
        return ChatRequest(Prompt(ids, images), settings, seed, min(max_new_tokens, room))

    def check_drawing(self, request: DrawRequest) -> None:
        length = len(self.vocabulary.drawing_prompt(request.caption)) + self.model.visual.num_patches
        if length > self.context:
            raise ValueError(
                f"the prompt and a picture of {self.model.visual.num_patches} patches are {length} tokens long, but "
                f"the model's context is {self.context}: shorten the prompt."
            )

    def submit_chat(self, request: ChatRequest, emit: Callable[[Any], None], deadline: float) -> Job:
        """Emits pieces of text, then Done(Answered)."""
        job = Job(("chat", request.settings), 1, request, emit, deadline)
        self.batcher.submit(job)
        return job

    def submit_drawing(self, request: DrawRequest, emit: Callable[[Any], None], deadline: float) -> Job:
        """Emits previews, then Done(pictures)."""
        job = Job(("draw", request.sampling), len(request.seeds), request, emit, deadline)
        self.batcher.submit(job)
        return job

    def _run(self, jobs: list[Job]) -> None:
        kind = jobs[0].key[0]
        if self.on_batch is not None:
            self.on_batch(kind, sum(job.rows for job in jobs))
        (self._answer if kind == "chat" else self._draw)(jobs)

    def _answer(self, jobs: list[Job]) -> None:
        requests: list[ChatRequest] = [job.request for job in jobs]
        streams = [TextStream(self.vocabulary) for _ in jobs]
        ended = [False] * len(jobs)
        with inference(self.model):
            prompts = [request.prompt for request in requests]
            seeds = [request.seed for request in requests]
            limits = [request.max_new_tokens for request in requests]
            for column in replies(self.model, self.vocabulary, prompts, limits, requests[0].settings, seeds):
                stop_unless_wanted([job for job, over in zip(jobs, ended, strict=True) if not over])
                for i, token in enumerate(column):
                    if token is not None:
                        if piece := streams[i].push(token):
                            jobs[i].emit(piece)
                    elif not ended[i]:
                        ended[i] = True
                        self._finish(jobs[i], streams[i])
        for job, stream, over in zip(jobs, streams, ended, strict=True):
            if not over:
                self._finish(job, stream)

    def _finish(self, job: Job, stream: TextStream) -> None:
        if piece := stream.rest():
            job.emit(piece)
        job.emit(Done(Answered(stream.num_tokens, complete=stream.num_tokens < job.request.max_new_tokens)))

    def _draw(self, jobs: list[Job]) -> None:
        across = self.model.visual.grid[1]
        captions = [job.request.caption for job in jobs for _ in job.request.seeds]
        seeds = [seed for job in jobs for seed in job.request.seeds]
        ends = torch.tensor([job.rows for job in jobs]).cumsum(0).tolist()
        slices = [slice(end - job.rows, end) for job, end in zip(jobs, ends, strict=True)]

        def on_position(position: int, codes: DualCodes) -> None:
            stop_unless_wanted(jobs)
            drawn = position + 1
            for job, rows in zip(jobs, slices, strict=True):
                every = across * job.request.preview_rows
                if every and drawn % every == 0 and drawn < self.model.visual.num_patches:
                    job.emit(self._preview(codes.pixel[rows], drawn))

        sampling = jobs[0].request.sampling
        codes = generate_images(self.model, self.vocabulary, captions, sampling, seeds, on_position)
        for job, rows in zip(jobs, slices, strict=True):
            # One by one: products of another shape round otherwise, and a picture must not depend on its batch.
            job.emit(Done([to_pil(self.tokenizer.decode(one[None])[0]) for one in codes.pixel[rows]]))

    def _preview(self, pixel_codes: Tensor, drawn: int) -> Preview:
        """int64[B, N, D], of which `drawn` patches are meant."""
        height, width = self.model.visual.grid
        images = self.tokenizer.decode(pixel_codes)
        shown = (torch.arange(height * width, device=images.device) < drawn).view(1, 1, height, width).float()
        shown = F.interpolate(shown, size=images.shape[-2:])
        return Preview([to_pil(image) for image in images * shown + 0.8 * (1 - shown)], drawn / (height * width))


def dialogue_ids(vocabulary: Vocabulary, turns: Sequence[Turn], num_patches: int) -> list[int]:
    return vocabulary.dialogue_prompt((turn.role, _segments(turn, num_patches)) for turn in turns)


def _segments(turn: Turn, num_patches: int) -> list[Segment]:
    """As in training (data/conversations.py): a user's single picture stands before the text."""
    segments: list[Segment] = [part if isinstance(part, str) else ImageSlot(num_patches) for part in turn.segments]
    slots = [segment for segment in segments if isinstance(segment, ImageSlot)]
    if turn.role != "user" or len(slots) != 1:
        return segments
    text = "".join(segment for segment in segments if isinstance(segment, str)).strip()
    return [*slots, f"\n{text}"] if text else [*slots]
