"""`dualtoken serve` as a process of its own: it starts, answers, draws, and ends when it is told to."""

import re
import signal
import subprocess
import sys

import httpx

from tests.serve.clients import CHAT, DRAW, HELLO, pixels


def test_it_starts_answers_draws_and_ends(unified, tmp_path):
    unified.model.save_pretrained(tmp_path, unified.vocabulary, unified.tokenizer)
    command = [sys.executable, "-m", "dualtoken", "serve", "--port", "0", "--model", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            [url] = re.findall(r"http://\S+:\d+", server.stdout.readline())
            with httpx.Client(base_url=url, timeout=60) as client:
                assert client.get("/health").json() == {"status": "ok"}
                answered = client.post(CHAT, json={**HELLO, "max_tokens": 2}).json()
                assert answered["usage"]["completion_tokens"] <= 2
                [drawn] = client.post(DRAW, json={"prompt": "a red apple"}).json()["data"]
                assert pixels(drawn).shape == (16, 16, 3)
            server.send_signal(signal.SIGTERM)
            _, errors = server.communicate(timeout=30)
        finally:
            server.kill()
    assert server.returncode == 0 and "Traceback" not in errors, errors
