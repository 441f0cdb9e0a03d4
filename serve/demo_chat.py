"""The tab that talks: texts and pictures in, answers while they are spelt."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from mllm.answer import GREEDY
from serve.batcher import Done
from serve.demo_parts import read, results
from serve.engine import ChatRequest, Engine, Turn

QUESTIONS = [
    "What is in the image?",
    "What is the style of the image?",
    "Describe the picture.",
    "What is the image about?",
]
PLACEHOLDER = "**Show a picture and ask about it.**\n\nThe clip adds a picture; without one, it is plain conversation."


@dataclass
class Conversation:
    """What the model reads, and what the page shows."""

    turns: list[Turn] = field(default_factory=list)
    shown: list[dict[str, Any]] = field(default_factory=list)


def build(engine: Engine, pictures: list[str]) -> None:
    conversation = gr.State(Conversation)
    shown = gr.Chatbot(
        # What a visitor or the model writes is shown as it stands, and is never markup.
        render_markdown=False,
        allow_tags=False,
        height=430,
        show_label=False,
        placeholder=PLACEHOLDER,
        feedback_options=None,
        elem_id="conversation",
    )
    said = gr.MultimodalTextbox(
        placeholder="Ask something …",
        file_types=["image"],
        file_count="multiple",
        max_plain_text_length=engine.limits.prompt_characters,
        show_label=False,
        autofocus=True,
        stop_btn=True,
        elem_id="said",
    )
    note = gr.Markdown("", elem_id="note")
    if pictures:
        samples = [{"text": question, "files": [path]} for question, path in zip(QUESTIONS * 2, pictures, strict=False)]
        gr.Examples(samples, said, label="Questions to try")
    new = gr.Button("New conversation", size="sm")

    def reply(said: dict[str, Any], talk: Conversation) -> Iterator[tuple[Any, ...]]:
        text, files = said.get("text") or "", said.get("files") or []
        if not text.strip() and not files:
            raise gr.Error("Ask something, or show a picture.")
        if len(text) > engine.limits.prompt_characters:
            raise gr.Error(f"A question may have at most {engine.limits.prompt_characters} characters.")
        if len(files) > engine.limits.pictures:
            raise gr.Error(f"Show at most {engine.limits.pictures} pictures at once.")
        images = [engine.see(read(path, engine)) for path in files]
        asked = [*talk.turns, Turn("user", [*images, *([text] if text.strip() else [])])]
        request, turns = _newest_that_fit(engine, asked)
        content = [*({"path": path} for path in files), *([text] if text.strip() else [])]
        before = [*talk.shown, {"role": "user", "content": content}]
        note = (
            f"The oldest {len(asked) - len(turns)} messages no longer fit the model's context."
            if turns != asked
            else ""
        )
        answer = ""
        yield None, talk, before, note
        for result in results(engine.submit_chat, request, engine.limits.seconds):
            answer += "" if isinstance(result, Done) else result
            after = [*before, {"role": "assistant", "content": answer or "…"}]
            yield None, Conversation([*turns, Turn("assistant", [answer])], after), after, note

    event = said.submit(reply, [said, conversation], [said, conversation, shown, note], api_visibility="private")
    said.stop(None, cancels=[event], api_visibility="private")
    new.click(
        lambda: (Conversation(), [], ""), None, [conversation, shown, note], cancels=[event], api_visibility="private"
    )


def _newest_that_fit(engine: Engine, turns: list[Turn]) -> tuple[ChatRequest, list[Turn]]:
    """The request with the oldest questions and answers left out, as many as the context asks for."""
    while True:
        try:
            return engine.chat_request(turns, GREEDY, 0, engine.limits.new_tokens), turns
        except ValueError as error:
            if len(turns) <= 2:
                raise gr.Error(str(error)) from error
            turns = turns[2:]
