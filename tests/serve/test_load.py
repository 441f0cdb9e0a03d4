"""Many clients at once, on a real socket: every answer is that of its own request, as if it had been alone."""

import asyncio

import httpx
import numpy as np

from eval.draw import draw_batch
from heads.sampling import SamplingConfig
from tests.serve.clients import CHAT, DRAW, about, alone, picture, pixels

PROMPTS = ["a red apple", "a waving hand, 3d style", "What is this?"]
COLORS = ["red", "green", "blue", "white"]


def test_nothing_is_lost_and_nothing_mixed_up(make_live, unified):
    live = make_live(batch_rows=8)
    drawings = [(PROMPTS[i % 3], 100 + i, (1.0, 3.0)[i % 2], 1 + i % 2) for i in range(24)]
    questions = [(f"{PROMPTS[i % 3]} {i}", picture(COLORS[i % 4]), 5 + i % 4) for i in range(24)]

    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=live.url, timeout=60) as client:
            drawn = [
                client.post(
                    DRAW, json={"prompt": prompt, "seed": seed, "cfg": cfg, "n": num, "temperature": 1, "top_k": 0}
                )
                for prompt, seed, cfg, num in drawings
            ]
            said = [client.post(CHAT, json={**about(image, q), "max_tokens": most}) for q, image, most in questions]
            together = [each for pair in zip(drawn, said, strict=True) for each in pair]
            return await asyncio.gather(*together)

    responses = asyncio.run(ask())
    assert [response.status_code for response in responses] == [200] * 48
    for (prompt, seed, cfg, num), response in zip(drawings, responses[::2], strict=True):
        for i, item in enumerate(response.json()["data"]):
            (expected,) = draw_batch(unified, [prompt], SamplingConfig(cfg=cfg), [seed + i])
            assert np.array_equal(pixels(item), np.asarray(expected))
        assert len(response.json()["data"]) == num
    for (question, image, most), response in zip(questions, responses[1::2], strict=True):
        said = response.json()["choices"][0]["message"]["content"]
        assert said == alone(live.engine, question, image, most)
    metrics = httpx.get(f"{live.url}/metrics").text
    counts = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if line.startswith("dualtoken_batch_rows_"))
    assert float(counts['dualtoken_batch_rows_sum{kind="draw"}']) == 36
    assert float(counts['dualtoken_batch_rows_sum{kind="chat"}']) == 24
    assert sum(float(counts[f'dualtoken_batch_rows_count{{kind="{kind}"}}']) for kind in ("draw", "chat")) < 40
