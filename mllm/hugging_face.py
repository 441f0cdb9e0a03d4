"""The unified model and its tokenizer as one `transformers` model: text and pixel values in, text or pictures out.

    model = AutoModel.from_pretrained("assets/emoji-model")         # after `import dualtoken`, see mllm/auto.py

It only holds what `load_unified` reads, and saves the same folder: training, evaluation and this class share a format.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from data.images import ImageTransform, to_pil
from heads.sampling import SamplingConfig
from mllm import dialogue
from mllm.auto_config import DualTokenConfig
from mllm.chat_messages import Message, turn
from mllm.decoding import inference
from mllm.dialogue import TextSampling
from mllm.generate import generate_images
from mllm.pretrained import Unified, load_unified, read_config, save_unified
from mllm.weights import MAX_SHARD_SIZE, parse_dtype
from tokenizer import DualCodes
from tokenizer.hub import download_options, local_folder, refuse_save_options


class DualTokenModel(PreTrainedModel):
    """For use, not for training: `dualtoken train` continues from the same folder."""

    config_class = DualTokenConfig
    main_input_name = "input_ids"
    input_modalities = ("text", "image")
    _supports_sdpa = _supports_flash_attn = True

    def __init__(self, config: DualTokenConfig, unified: Unified) -> None:
        super().__init__(config)
        self.model, self.vocabulary, self.tokenizer = unified

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        name: str | Path,
        *,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        device_map: torch.device | str | int | None = None,
        **options: Any,
    ) -> "DualTokenModel":
        """Reads a folder or a repository of the hub.

        `dtype`: of the language model and heads; None or "auto" as config.json says. The tokenizer stays in fp32, for
        its codes depend on every bit. `device`, or `device_map` as a device or "auto": the whole model on one device.
        """
        folder = local_folder(name, **download_options(options))
        document = read_config(folder)
        dtype = document.get("dtype", "float32") if dtype in (None, "auto") else dtype
        dtype = parse_dtype(dtype) if isinstance(dtype, str) else dtype
        if not dtype.is_floating_point:
            raise ValueError(f"dtype={dtype} is for the disk alone: read the model as float32, bfloat16 or float16.")
        unified = load_unified(folder, dtype, device=_device(device, device_map))
        return cls(DualTokenConfig(**document), unified).eval()

    def save_pretrained(  # type: ignore[override]
        self,
        folder: str | Path,
        *,
        dtype: torch.dtype | None = None,
        max_shard_size: str = MAX_SHARD_SIZE,
        **options: Any,
    ) -> None:
        """The folder that training writes and reads. ValueError for other `options` of transformers'."""
        refuse_save_options(options)
        save_unified(self.model, folder, self.vocabulary, self.tokenizer, None, dtype, max_shard_size)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, pixel_values: Tensor | None = None, **_: Any
    ) -> CausalLMOutput:
        """Text logits float[S, T, V] at every position; the inputs are the processor's."""
        self._room(input_ids, attention_mask)
        embeddings = self._embed(input_ids, pixel_values)
        return CausalLMOutput(logits=self.model.llm(inputs_embeds=embeddings, attention_mask=attention_mask).logits)

    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        """New ids int64[S, t] of each row, without its prompt; `options` are those of transformers' `generate`.

        Ends with the context at the latest. ValueError where the longest row does not fit into it.
        """
        llm, vocabulary = self.model.llm, self.vocabulary
        padding = list(range(len(vocabulary), llm.config.vocab_size))  # rows of the embedding that spell nothing
        settings = {
            "max_new_tokens": 128,
            "eos_token_id": vocabulary.ends,
            "pad_token_id": vocabulary.endoftext,
            "suppress_tokens": vocabulary.silent + padding,
        }
        settings |= options
        # The last token is said, and never read: a full context still has a next one.
        settings["max_new_tokens"] = min(settings["max_new_tokens"], max(self._room(input_ids, attention_mask), 1))
        with inference(self.model):
            embeddings = self._embed(input_ids, pixel_values)
            return llm.generate(inputs_embeds=embeddings, attention_mask=attention_mask, **settings)

    def draw(
        self, captions: str | Sequence[str], seeds: Sequence[int] | None = None, **sampling: Any
    ) -> list[Image.Image]:
        """One picture a caption, each decided by its seed (0, 1, … where none is given).

        `sampling` is of heads.sampling.SamplingConfig: cfg=3.0, temperature, top_k, top_p.
        """
        captions = [captions] if isinstance(captions, str) else list(captions)
        seeds = range(len(captions)) if seeds is None else seeds
        codes = generate_images(self.model, self.vocabulary, captions, SamplingConfig(**sampling), list(seeds))
        return self.decode_images(codes)

    def reply(
        self,
        messages: Sequence[Message],
        text: TextSampling = TextSampling(),
        sampling: SamplingConfig = SamplingConfig(),
        seed: int = 0,
    ) -> list[str | Image.Image]:
        """The assistant's answer to a conversation in the processor's form: its texts and pictures in order."""
        turns = [dialogue.Message(role, [self._read(part) for part in parts]) for role, parts in map(turn, messages)]
        answer = dialogue.generate(self.model, self.vocabulary, turns, text, sampling, seed)
        return [part if isinstance(part, str) else self._show(part) for part in answer.segments]

    def encode_images(self, pixel_values: Tensor) -> DualCodes:
        """float[B, 3, h, w] of the processor → codes int64[B, N, D] per branch."""
        return self.tokenizer.encode(pixel_values.to(self.device).float())

    def decode_images(self, codes: DualCodes) -> list[Image.Image]:
        return [to_pil(image) for image in self.tokenizer.decode(codes.pixel)]

    def _read(self, part: str | Image.Image) -> str | DualCodes:
        """A picture becomes its codes int64[N, D] per branch."""
        if isinstance(part, str):
            return part
        transform = ImageTransform(self.tokenizer.image_size, self.tokenizer.config.crop)
        return DualCodes(*(branch[0] for branch in self.encode_images(transform(part).unsqueeze(0))))

    def _show(self, codes: DualCodes) -> Image.Image:
        """int64[N, D] per branch."""
        return self.decode_images(DualCodes(codes.pixel.unsqueeze(0), codes.semantic.unsqueeze(0)))[0]

    def _room(self, input_ids: Tensor, attention_mask: Tensor | None) -> int:
        """Positions of the context behind the longest row, without its padding; ValueError where it does not fit."""
        length = input_ids.shape[1] if attention_mask is None else int(attention_mask.sum(1).max())
        context = self.model.llm.config.max_position_embeddings
        if length > context:
            raise ValueError(
                f"the input is {length} tokens long, but the language model's context is {context}: shorten the text, "
                "or leave out pictures."
            )
        return context - length

    def _embed(self, input_ids: Tensor, pixel_values: Tensor | None) -> Tensor:
        """float[S, T, E], with the pictures in their places."""
        visual = self.model.visual
        codes = DualCodes(*torch.zeros(2, 0, *visual.shape, dtype=torch.int64, device=self.device))
        if pixel_values is not None:
            codes = self.encode_images(pixel_values)
        places = input_ids == self.vocabulary.image_pad
        if int(places.sum()) != len(codes.pixel) * visual.num_patches:
            raise ValueError(
                f"input_ids have {int(places.sum())} places for patches, but {len(codes.pixel)} images of "
                f"{visual.num_patches} are given: take both from one call of the processor."
            )
        return self.model.embed(input_ids, places, codes)


def _device(device: torch.device | str | None, device_map: torch.device | str | int | None) -> torch.device | str:
    """The one device; "auto" is the accelerator where there is one."""
    if device is not None and device_map is not None:
        raise ValueError("device and device_map are two names of one thing: give one of them.")
    chosen = device if device is not None else device_map
    if chosen == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if isinstance(chosen, dict):
        raise ValueError("the model is not divided over devices: give device_map a single device, such as 'cuda:0'.")
    if isinstance(chosen, int):
        return torch.device("cuda", chosen)
    return "cpu" if chosen is None else chosen
