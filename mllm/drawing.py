"""Drawing images patch by patch (arXiv 2503.14324, section 3.3): the LLM over patches, both heads over depth.

Conditional and unconditional rows run side by side in one batch; no text logits are computed inside an image. Drawing
can stop after any patch and go on from the codes so far, here or in another process.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from data.vocabulary import Vocabulary
from heads.depth_decoding import DepthDecoder, sample_codes
from heads.sampling import BRANCHES, SamplingConfig, uniforms
from mllm.decoding import CachedDecoder, inference
from mllm.model import UnifiedModel
from mllm.prompts import Prompt, embed_prompts
from mllm.static_decoding import StaticDecoder
from tokenizer import DualCodes, ProjectionCache


class Drawing:
    """B images on their way."""

    def __init__(
        self,
        model: UnifiedModel,
        vocabulary: Vocabulary,
        prompts: Sequence[Prompt],
        sampling: SamplingConfig,
        seeds: Sequence[int],
        prefix: DualCodes | None = None,
    ) -> None:
        """prompts: one for each image, up to and including its `<|vision_start|>`; prefix: int64[B, p, D] per branch,
        the patches that are there already.
        """
        num_patches, depth = model.visual.shape
        self.model, self.num_patches, self.num_images, self.num_done = model, num_patches, len(prompts), 0
        self.draws = [sampling.draws(branch, depth) for branch in BRANCHES]
        rows = [*prompts, *[Prompt(vocabulary.drawing_prompt(None))] * len(prompts) * sampling.guided]
        self.copies = len(rows) // len(prompts)
        with inference(model):
            self.random = uniforms(seeds, num_patches, len(BRANCHES), depth).to(model.device)
            guidance = torch.stack([sampling.guidance(branch, num_patches) for branch in BRANCHES], dim=1)
            self.guidance = guidance.to(model.device)  # float32[N, 2]
            self.codes = torch.zeros(2, len(prompts), num_patches, depth, dtype=torch.int64, device=model.device)
            self.place = torch.zeros(1, dtype=torch.int64, device=model.device)  # the next patch
            self.heads = DepthDecoder([model.head(branch) for branch in BRANCHES])
            self.caches = {branch: ProjectionCache(num_patches) for branch in BRANCHES}  # of `visual_features`
            embeddings, mask = embed_prompts(model, vocabulary, rows)
            decoder = CachedDecoder if sampling.runtime == "eager" else StaticDecoder
            self.decoder = decoder(model, mask, num_patches - 1)
            self.embeddings = embeddings if prefix is None else self._with_prefix(embeddings, prefix)
        self._next = self._step
        if sampling.runtime == "compile":
            for tensor in (self.codes, self.place, self.random, self.guidance, *self.heads.weights.values()):
                torch._dynamo.mark_static_address(tensor)  # CUDA graphs copy other inputs, and refuse to change them
            self._next = torch.compile(self._step, dynamic=False, mode="reduce-overhead")

    def advance(self, num_patches: int) -> DualCodes:
        """Draws so many more patches, or those that are left; returns `so_far`."""
        with inference(self.model):
            for _ in range(min(num_patches, self.num_patches - self.num_done)):
                # Prompts differ in length, and are not worth compiling. A compiled step may reuse its output's memory.
                step = self._next if self.embeddings.shape[1] == 1 else self._step
                self.embeddings = step(self.embeddings).clone()
                self.num_done += 1
        return self.so_far

    @property
    def so_far(self) -> DualCodes:
        """int64[B, p, D] per branch, of the p patches that are done."""
        return DualCodes(*self.codes[:, :, : self.num_done].clone())

    @property
    def done(self) -> bool:
        return self.num_done == self.num_patches

    def rows(self, num_rows: int) -> Iterator[DualCodes]:
        """`so_far` after every `num_rows` rows of the image, at last with all of it."""
        width = self.model.visual.grid[1] * num_rows
        while True:
            yield self.advance(width - self.num_done % width)
            if self.done:
                return

    def _step(self, embeddings: Tensor) -> Tensor:
        """Embeddings float[R, t, E] before the next patch -> those of the patch float[R, 1, E]."""
        codes = sample_codes(
            self.heads,
            self.decoder.advance(embeddings),
            self._vectors_at,
            self.random.index_select(1, self.place)[:, 0],
            self.draws,
            self.guidance.index_select(0, self.place)[0],
        )
        self.codes.index_copy_(2, self.place, codes.unsqueeze(2))
        patch = self.model.patch_features(DualCodes(*codes.unsqueeze(2)), self.caches)
        embedding = self.model.visual_embedding(patch, self.place)
        self.place += 1
        return embedding.repeat(self.copies, 1, 1)

    def _vectors_at(self, codes: Tensor, depth: int) -> Tensor:
        return torch.stack([self.model.code_vectors_at(b, c, depth) for b, c in zip(BRANCHES, codes, strict=True)])

    def _with_prefix(self, embeddings: Tensor, prefix: DualCodes) -> Tensor:
        """Appends the patches that are there already: float[R, T, E] -> float[R, T + p, E]."""
        given = torch.stack(tuple(prefix)).to(self.codes.device)
        num_given = given.shape[2] if given.dim() == 4 else -1
        if given.shape != self.codes[:, :, :num_given].shape or given.is_floating_point():
            raise ValueError(
                f"the codes to go on from have shape {tuple(given.shape[1:])}, but {self.num_images} image(s) take "
                f"({self.num_images}, patches so far, {self.codes.shape[3]}): give what drawing returned."
            )
        if num_given and not 0 <= int(given.min()) <= int(given.max()) < self.model.visual.codebook_size:
            raise ValueError(
                f"the codes to go on from reach from {int(given.min())} to {int(given.max())}, but the codebooks have "
                f"{self.model.visual.codebook_size} entries: they are of another tokenizer."
            )
        self.num_done = num_given
        self.codes[:, :, :num_given] = given
        self.place += num_given
        patches = torch.arange(num_given, device=given.device)
        embedded = self.model.visual_embedding(self.model.patch_features(DualCodes(*given), self.caches), patches)
        return torch.cat([embeddings, embedded.repeat(self.copies, 1, 1)], dim=1)
