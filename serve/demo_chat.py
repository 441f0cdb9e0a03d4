"""The tab that talks: texts and pictures in, and out while they come to be."""

import html
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from data.vocabulary import drawing_request
from eval.pictures import decode_picture
from heads.sampling import SamplingConfig
from mllm.dialogue import ImagePiece, Piece, TextSampling, message_of
from mllm.messages import Message, read_messages
from serve.batcher import Done
from serve.conversation import user_message
from serve.demo_parts import enlarged, mistake, read, results
from serve.engine import DialogueRequest, Engine

QUESTIONS = [
    "What is in the image?",
    "What is the style of the image?",
    "Describe the picture.",
    "What is the image about?",
]
PLACEHOLDER = "Show a picture and ask about it, or ask for one: Draw: a red apple, 3d style"
SAMPLING = SamplingConfig(cfg=3.0, temperature=0.8, top_k=200)

Shown = list[dict[str, Any]]


@dataclass
class Conversation:
    """What the model reads, and what the page shows."""

    messages: list[Message] = field(default_factory=list)
    shown: Shown = field(default_factory=list)


def build(engine: Engine, pictures: list[str]) -> None:
    limits, folder = engine.limits, tempfile.TemporaryDirectory(prefix="dualtoken-chat-")
    conversation = gr.State(Conversation())
    shown = gr.Chatbot(
        render_markdown=False,
        allow_tags=False,
        height=560,
        show_label=False,
        placeholder=PLACEHOLDER,
        feedback_options=None,
        buttons=[],
        elem_id="conversation",
    )
    said = gr.MultimodalTextbox(
        placeholder="Ask something, or add a picture with the clip",
        file_types=["image"],
        file_count="multiple",
        max_plain_text_length=limits.prompt_characters,
        show_label=False,
        autofocus=True,
        elem_id="said",
    )
    note = gr.Markdown("", elem_id="note")
    if pictures:
        samples = [{"text": question, "files": [path]} for question, path in zip(QUESTIONS, pictures, strict=False)]
        samples.append({"text": drawing_request("a smiling face, 3d style"), "files": []})
        gr.Examples(samples, said, label="To try")
    new = gr.Button("New conversation", size="sm")

    def reply(said: dict[str, Any], talk: Conversation) -> Iterator[tuple[Any, Conversation, Shown, str]]:
        text, files = said.get("text") or "", said.get("files") or []
        if not text.strip() and not files:
            raise mistake("Ask something, or show a picture.")
        if len(text) > limits.prompt_characters:
            raise mistake(f"A question may have at most {limits.prompt_characters} characters.")
        if len(files) > limits.pictures:
            raise mistake(f"Show at most {limits.pictures} pictures at once.")
        words = [text] if text.strip() else []
        asked = [*talk.messages, user_message([*(engine.see(read(path, engine)) for path in files), *words])]
        # In training nothing stands before a request to draw.
        alone = text.startswith(drawing_request("")) and not files
        messages = asked[-1:] if alone else _newest_that_fit(engine, asked)
        left_out = 0 if alone else len(asked) - len(messages)
        note = f"The oldest {left_out} messages do not fit the model's context any more." if left_out else ""
        content = [*({"path": path} for path in files), *map(_literal, words)]
        before = [*talk.shown, {"role": "user", "content": content}]
        yield gr.MultimodalTextbox(value=None, submit_btn=False, stop_btn=True), talk, before, note
        request = DialogueRequest(messages, TextSampling(max_new_tokens=limits.new_tokens), SAMPLING, len(before))
        answer = _Reply(engine, folder.name)
        for piece in results(engine.submit_dialogue, request, limits.seconds):
            if not isinstance(piece, Done):
                answer.add(piece)
            after = [*before, answer.shown]
            yield gr.skip(), Conversation([*asked[left_out:], answer.message], after), after, note

    def ready() -> dict[str, Any]:
        return gr.MultimodalTextbox(submit_btn=True, stop_btn=False)

    private: dict[str, Any] = {"api_visibility": "private"}
    outputs = [said, conversation, shown, note]
    answering = said.submit(reply, [said, conversation], outputs, show_progress="hidden", **private)
    answering.then(ready, None, said, **private)
    said.stop(ready, None, said, cancels=[answering], **private)
    for fresh in (new.click, shown.clear):
        fresh(lambda: (ready(), Conversation(), [], ""), None, outputs, cancels=[answering], **private)


class _Reply:
    """A reply so far: for the page, and for the model."""

    def __init__(self, engine: Engine, folder: str) -> None:
        self._engine, self._folder = engine, folder
        self._pieces: list[Piece] = []
        self._content: list[Any] = []

    def add(self, piece: Piece) -> None:
        before = self._pieces[-1] if self._pieces else None
        unfinished = isinstance(before, ImagePiece) and not before.done
        self._pieces.append(piece)
        if isinstance(piece, ImagePiece):
            if unfinished:
                Path(self._content.pop()["path"]).unlink()  # the page has its copy
            self._content.append(self._file(piece))
        elif self._content and isinstance(self._content[-1], str):
            self._content[-1] += piece.text
        else:
            self._content.append(piece.text)

    @property
    def shown(self) -> dict[str, Any]:
        content = [_literal(part) if isinstance(part, str) else part for part in self._content]
        return {"role": "assistant", "content": content or ["…"]}

    @property
    def message(self) -> Message:
        return message_of(self._pieces)

    def _file(self, piece: ImagePiece) -> dict[str, str]:
        with tempfile.NamedTemporaryFile(suffix=".png", dir=self._folder, delete=False) as file:
            enlarged(decode_picture(self._engine.unified, piece.codes)).save(file, "png")
        return {"path": file.name}


def _literal(text: str) -> str:
    """What a visitor or the model writes is shown as it stands; the page would take it for HTML."""
    return html.escape(text, quote=False)


def _newest_that_fit(engine: Engine, messages: list[Message]) -> list[Message]:
    """Without the oldest questions and answers, as many as the context asks for."""
    while True:
        try:
            read_messages(engine.vocabulary, messages, engine.model)
            return messages
        except ValueError as error:
            if len(messages) <= 2:
                raise mistake(str(error)) from error
            messages = messages[2:]
