r"""Drawing images, against a loop as it is usually written, and against what the memory's bandwidth allows.

    python -m benchmarks.sampling --size tiny --json sampling.json
    python -m benchmarks.sampling --size full --dtype bfloat16 --batches 1 4 16 --runtimes eager compile \
        --no-reference --repeats 1 --json sampling.json

The usual loop draws one image at a time, runs each head over all depths anew for every code, and computes text logits
for every patch that it throws away. Its LLM has a key-value cache, as ours has. Weights are random: time does not
depend on them. The floor is the time in which the weights that a patch needs are read once from memory, at the
bandwidth of a copy. Seconds are wall time on a GPU, and the CPU time of this process elsewhere (set OMP_NUM_THREADS=1).
Each contender's figure is written down at once: one that fails, or a time limit from outside, loses no other.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from transformers import DynamicCache

from benchmarks.timing import machine, medians, write_json
from data.vocabulary import Vocabulary
from heads.config import DepthHeadConfig
from heads.depth_decoding import DepthDecoder, sample_codes
from heads.depth_transformer import DepthTransformer
from heads.sampling import SamplingConfig, guide
from mllm.config import LLMConfig, UnifiedConfig, VisualSpec
from mllm.decoding import inference, left_pad
from mllm.generate import generate_images
from mllm.model import UnifiedModel
from tokenizer import Codebooks, DualCodes

CAPTION = "a red apple on a wooden table, photographed from above"
HEAD_RUNS = 4  # patches at a time, where one is too short to measure


@dataclass(frozen=True)
class Size:
    visual: VisualSpec
    vocab_size: int
    config: UnifiedConfig


def _size(side: int, depth: int, entries: int, code_dim: int, vocab_size: int, llm: LLMConfig, heads: tuple) -> Size:
    visual = VisualSpec((side, side), depth, entries, code_dim, "random")
    return Size(visual, vocab_size, UnifiedConfig(llm=llm, heads=DepthHeadConfig(*heads)))


SIZES = {
    # configs/tiny; between; configs/full with Qwen2.5-3B's sizes, which are LLMConfig's defaults
    "tiny": _size(8, 4, 512, 16, 2048, LLMConfig(None, 384, 1024, 4, 6, 2, 1024, attn_implementation="eager"),
                  (3, 128, 2, 512)),
    "mid": _size(12, 8, 4096, 32, 32768, LLMConfig(None, 768, 2048, 8, 12, 2, 2048, attn_implementation="sdpa"),
                 (3, 384, 6, 1536)),
    "full": _size(27, 8, 16384, 32, 151936, LLMConfig(attn_implementation="sdpa"), (3, 1024, 16, 4096)),
}  # fmt: skip


def main(arguments: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--side", type=int, help="patches a side, for a quick look at a large size")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--runtimes", nargs="+", default=["eager"], help="eager static compile")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cfg", type=float, default=3.0)
    parser.add_argument("--no-reference", action="store_true")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size, vocabulary = SIZES[args.size], Vocabulary.train([CAPTION], 300)
    if args.side:
        size = replace(size, visual=replace(size.visual, grid=(args.side, args.side)))
    model = build(size, getattr(torch, args.dtype), device)
    sampling = SamplingConfig(cfg=args.cfg, top_k=200)
    result: dict = {"size": args.size, "dtype": args.dtype, "patches": size.visual.num_patches}
    print(f"{machine()}; size {args.size}, {size.visual.num_patches} patches, {args.dtype}, cfg {args.cfg:g}")
    clock = time.perf_counter if device == "cuda" else time.process_time
    with inference(model):
        result["floor_seconds"] = floor(model, device, clock)
        measure = partial(medians, repeats=args.repeats, clock=clock)
        result["heads_seconds"] = heads_at_once(model, sampling, args.batches, measure)
    contenders = {
        f"ours, {runtime}, batch {batch}": partial(draw, model, vocabulary, args.cfg, runtime, batch)
        for runtime in args.runtimes for batch in args.batches
    }  # fmt: skip
    if not args.no_reference:
        print(f"same greedy codes as the usual loop: {agreement(model, vocabulary, args.cfg):.2%}")
        contenders["usual loop, one image"] = lambda: reference_image(model, vocabulary, sampling, seed=0)
    seconds: dict[str, float] = {}
    result |= {"seconds": seconds, "failed": {}}
    for name, contender in contenders.items():
        try:
            seconds |= medians({name: contender}, args.repeats, clock)
        except RuntimeError as error:  # out of memory above all
            result["failed"][name] = str(error).split("\n")[0]
            print(f"{name} failed: {result['failed'][name]}")
        write_json(args.json, result)
    usual = seconds.get("usual loop, one image")
    print(f"{'':<32}{'s a batch':>11}{'s an image':>12}{'of the usual':>14}{'of the floor':>14}")
    for name, value in seconds.items():
        each = value / (int(name.rsplit(" ", 1)[1]) if name.startswith("ours") else 1)
        ratio = f"{usual / each:.2f} x" if usual else ""
        print(f"{name:<32}{value:>11.3f}{each:>12.3f}{ratio:>14}{value / result['floor_seconds']:>12.1f} x")
    return result


def build(size: Size, dtype: torch.dtype, device: str) -> UnifiedModel:
    torch.manual_seed(0)
    shape = (1, size.visual.codebook_size, size.visual.code_dim)
    codebooks = Codebooks(torch.randn(shape), torch.randn(shape))
    with torch.device(device):
        model = UnifiedModel(size.config, size.visual, size.vocab_size, codebooks, dtype=dtype)
    return model.to(device).eval()


def draw(model: UnifiedModel, vocabulary: Vocabulary, cfg: float, runtime: str, batch: int) -> DualCodes:
    sampling = SamplingConfig(cfg=cfg, top_k=200, runtime=runtime)
    return generate_images(model, vocabulary, [CAPTION] * batch, sampling, range(batch))


def floor(model: UnifiedModel, device: str, clock: Callable[[], float]) -> float:
    """Seconds in which one image's weights are read: LLM and classifiers once a patch, the heads' blocks once a depth.

    Caches and the rows of a batch are not in it: the floor is the same for every batch.
    """
    depth = model.visual.depth
    heads = [model.pixel_head, model.semantic_head]
    classifiers = sum(_bytes(head.classifiers) for head in heads)
    decoder = _bytes(model.llm.get_decoder()) - _bytes(model.llm.get_input_embeddings())
    each_patch = decoder + classifiers + depth * (sum(map(_bytes, heads)) - classifiers)
    bandwidth = copy_bandwidth(device, clock)
    seconds = model.visual.num_patches * each_patch / bandwidth
    print(f"{each_patch / 1e6:.1f} MB of weights a patch, {bandwidth / 1e9:.1f} GB/s: floor {seconds:.3f} s an image")
    return seconds


def _bytes(module: torch.nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())


def copy_bandwidth(device: str, clock: Callable[[], float]) -> float:
    """Bytes a second, read and written, of the best of ten copies too large for any cache."""
    source = torch.ones((1 << 30) if device == "cuda" else (1 << 27), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(10):
        started = clock()
        target.copy_(source)
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, clock() - started)
    return 2 * source.numel() / best


def heads_at_once(
    model: UnifiedModel, sampling: SamplingConfig, batches: list[int], measure: Callable[[dict], dict[str, float]]
) -> dict[str, float]:
    """The codes of one patch by both heads together, and by one after the other."""
    depth, width = model.visual.depth, model.llm.config.hidden_size
    heads = [model.pixel_head, model.semantic_head]
    together, alone = DepthDecoder(heads), [DepthDecoder([head]) for head in heads]
    draws = [sampling.draws(branch, depth) for branch in ("pixel", "semantic")]
    guidance = torch.full((2,), sampling.cfg, device=model.device)

    def vectors(codes: Tensor, depth: int) -> Tensor:
        return model.codebooks.vectors_at("pixel", codes, depth)

    contenders = {}
    for batch in batches:
        states = torch.randn(2 * batch, width, device=model.device, dtype=next(model.parameters()).dtype)
        random = torch.rand(batch, 2, depth, dtype=torch.float64, device=model.device)

        def both(states: Tensor = states, random: Tensor = random) -> None:
            for _ in range(HEAD_RUNS):
                sample_codes(together, states, vectors, random, draws, guidance)

        def each(states: Tensor = states, random: Tensor = random) -> None:
            for _ in range(HEAD_RUNS):
                for i, decoder in enumerate(alone):
                    part = slice(i, i + 1)
                    sample_codes(decoder, states, vectors, random[:, part], draws[part], guidance[part])

        contenders |= {f"together, batch {batch}": both, f"one by one, batch {batch}": each}
    seconds = {name: value / HEAD_RUNS for name, value in measure(contenders).items()}
    for batch in batches:
        one, two = seconds[f"together, batch {batch}"], seconds[f"one by one, batch {batch}"]
        print(
            f"both heads, one patch, batch {batch}: {one * 1e3:.2f} ms together, {two * 1e3:.2f} ms one by one "
            f"({two / one:.2f} x)"
        )
    return seconds


def reference_image(model: UnifiedModel, vocabulary: Vocabulary, sampling: SamplingConfig, seed: int) -> DualCodes:
    """One image as most public code draws it; codes int64[1, N, D] per branch."""
    generator = torch.Generator(model.device).manual_seed(seed)
    prompts = [vocabulary.drawing_prompt(CAPTION), vocabulary.drawing_prompt(None)]
    ids, mask = left_pad(prompts, vocabulary.endoftext, model.device)
    num_patches, depth = model.visual.shape
    codes = DualCodes(*torch.zeros(2, 1, num_patches, depth, dtype=torch.int64, device=model.device))
    heads = {"pixel": model.pixel_head, "semantic": model.semantic_head}
    cfg = torch.tensor(sampling.cfg, device=model.device)
    with inference(model):
        cache, embeddings = DynamicCache(), model.llm.get_input_embeddings()(ids)
        for patch in range(num_patches):
            position_ids = (mask.cumsum(1) - 1).clamp(min=0)[:, -embeddings.shape[1] :]
            states = model.llm.get_decoder()(
                inputs_embeds=embeddings, attention_mask=mask, position_ids=position_ids, past_key_values=cache,
                use_cache=True,
            ).last_hidden_state[:, -1]  # fmt: skip
            model.llm.get_output_embeddings()(states)  # the text logits
            for branch, head in heads.items():
                row = getattr(codes, branch)[:, patch]
                for d in range(depth):
                    vectors = model.codebooks.vectors(branch, row)[:, :d].repeat(2, 1, 1)
                    logits = head.classifiers.logits(last_state(head, states, vectors), d)
                    row[:, d] = pick(guide(logits, cfg), sampling, generator)
            mask = torch.cat([mask, mask.new_ones(2, 1)], dim=1)
            here = DualCodes(*(part[:, patch : patch + 1] for part in codes))
            number = torch.tensor([patch], device=model.device)
            embeddings = model.visual_embedding(model.codebooks.sums(here), number).repeat(2, 1, 1)
    return codes


def last_state(head: DepthTransformer, states: Tensor, vectors: Tensor) -> Tensor:
    """float[M, W] at depth d + 1, from the d code vectors before it, all computed anew."""
    inputs = [head.hidden_projection(states)[:, None], head.code_projection(vectors.cumsum(1).to(states.dtype))]
    x = torch.cat(inputs, dim=1) + head.depth_positions[: vectors.shape[1] + 1]
    for block in head.blocks:
        x = block(x)
    return head.norm(x[:, -1])


def pick(logits: Tensor, sampling: SamplingConfig, generator: torch.Generator) -> Tensor:
    if sampling.temperature == 0:
        return logits.argmax(-1)
    logits = logits / sampling.temperature
    logits[logits < logits.topk(sampling.top_k)[0][:, -1:]] = -float("inf")
    return torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]


def agreement(model: UnifiedModel, vocabulary: Vocabulary, cfg: float) -> float:
    """Share of codes that both draw without chance; random weights leave near ties, which rounding decides."""
    sampling = SamplingConfig(cfg=cfg, temperature=0.0)
    ours = generate_images(model, vocabulary, [CAPTION], sampling, [0])
    theirs = reference_image(model, vocabulary, sampling, seed=0)
    return torch.stack(tuple(ours)).eq(torch.stack(tuple(theirs))).float().mean().item()


if __name__ == "__main__":
    main()
