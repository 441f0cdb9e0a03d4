"""Quantize and update, against one-hot matrices, vector-quantize-pytorch and the bare products; and peak memory.

    python -m benchmarks.quantizer --images 2 --repeats 3

Times are of `--images` images, for a one-hot matrix of 32 does not fit most machines; memory is of 32 images.
"""

import argparse

import torch
from torch import Tensor
from vector_quantize_pytorch import ResidualVQ

from benchmarks.memory import peak_memory
from benchmarks.timing import machine, medians
from tokenizer.config import QuantizerConfig
from tokenizer.quantizer import ResidualQuantizer

POSITIONS, CODE_DIM, CODEBOOK_SIZE, DEPTH = 27 * 27, 32, 16384, 8


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--many", type=int, default=32, help="images whose memory is measured")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    print(machine())
    ours = warm_quantizer(device)
    many = features(args.many, device)
    ours(many[:1])  # libraries that load lazily are no part of it
    peak = peak_memory(lambda: ours(many), many.is_cuda)
    print(f"peak extra memory, {args.many} images: {peak / 1e6:.0f} MB (target: under 300 for 32)")
    z = features(args.images, device)
    peer = same_peer(ours)
    book, vectors = ours.codebook(0).embedding.clone(), z.flatten(0, 1)
    one_hot = OneHot(ours)
    agree = (ours.encode(z) == peer.eval()(z)[1]).float().mean().item()
    peer.train()
    seconds = medians(
        {
            "ours": lambda: ours(z),
            "one-hot": lambda: one_hot.step(vectors),
            "vector-quantize-pytorch": lambda: peer(z),
            "bare products": lambda: [torch.matmul(vectors, book.T) for _ in range(DEPTH)],
        },
        args.repeats,
    )
    print(
        f"{args.images} images of {POSITIONS} positions, K {CODEBOOK_SIZE}, C {CODE_DIM}, D {DEPTH}; same codes: "
        f"{agree:.4%} of vector-quantize-pytorch's"
    )
    for name, value in seconds.items():
        print(f"{name:<26}{value:8.3f} s   {value / seconds['ours']:6.2f} × ours")
    print(f"ours / bare products: {seconds['ours'] / seconds['bare products']:.2f} (target: at most 1.6)")


def warm_quantizer(device: str) -> ResidualQuantizer:
    """In training mode, with statistics under which no entry restarts at the first step."""
    config = QuantizerConfig(code_dim=CODE_DIM, codebook_size=CODEBOOK_SIZE, depth=DEPTH, ema_update="per_forward")
    quantizer = ResidualQuantizer(config).to(device).train()
    book = quantizer.codebook(0)
    book.cluster_size.fill_(10.0)
    book.vector_sum.copy_(book.embedding * 10)
    return quantizer


def features(images: int, device: str) -> Tensor:
    return torch.randn(images, POSITIONS, CODE_DIM, device=device)


def same_peer(ours: ResidualQuantizer) -> ResidualVQ:
    """Their quantizer with our codebook, without restarts, which ours has."""
    peer = ResidualVQ(
        dim=CODE_DIM, codebook_size=CODEBOOK_SIZE, num_quantizers=DEPTH, shared_codebook=True, kmeans_init=False,
        decay=0.99, threshold_ema_dead_code=0,
    ).to(ours.codebook(0).embedding.device)  # fmt: skip
    for layer in peer.layers:
        layer._codebook.embed.data.copy_(ours.codebook(0).embedding[None])
        layer._codebook.embed_avg.data.copy_(ours.codebook(0).vector_sum[None])
        layer._codebook.cluster_size.data.copy_(ours.codebook(0).cluster_size[None])
    return peer


class OneHot:
    """The same search and update as a textbook writes it: all distances at once, sums by a one-hot product."""

    def __init__(self, ours: ResidualQuantizer):
        book = ours.codebook(0)
        self.embedding, self.size, self.sums = (t.clone() for t in (book.embedding, book.cluster_size, book.vector_sum))

    @torch.no_grad()
    def step(self, vectors: Tensor) -> None:
        residual, residuals, codes = vectors, [], []
        for _ in range(DEPTH):
            norms = residual.square().sum(1, keepdim=True) + self.embedding.square().sum(1)
            distances = norms - 2 * residual @ self.embedding.T
            residuals.append(residual)
            codes.append(distances.argmin(1))
            residual = residual - self.embedding[codes[-1]]
        one_hot = torch.nn.functional.one_hot(torch.cat(codes), CODEBOOK_SIZE).float()  # float[D·N, K]
        self.size = 0.99 * self.size + 0.01 * one_hot.sum(0)
        self.sums = 0.99 * self.sums + 0.01 * one_hot.T @ torch.cat(residuals)
        total = self.size.sum()
        self.embedding = self.sums / ((self.size + 1e-5) / (total + CODEBOOK_SIZE * 1e-5) * total)[:, None]


if __name__ == "__main__":
    main()
