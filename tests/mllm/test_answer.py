import pytest
import torch

from mllm.answer import answer
from tokenizer import DualCodes

QUESTIONS = ["What is this?", "Is the style of this picture flat? Answer yes or no.", "Hello!"]


@pytest.fixture
def images():
    codes = torch.randint(8, (2, 2, 4, 3), generator=torch.Generator().manual_seed(0))
    return [DualCodes(*codes[0]), DualCodes(*codes[1]), None]


def greedy(model, vocabulary, question, image, max_new_tokens) -> list[int]:
    """Without cache, padding or batch: everything anew for each token."""
    ids, new = vocabulary.answering_prompt(question, None if image is None else 4), []
    nothing = torch.zeros(0, 4, 3, dtype=torch.int64)
    codes = DualCodes(nothing, nothing) if image is None else DualCodes(image.pixel[None], image.semantic[None])
    while len(new) < max_new_tokens:
        row = torch.tensor([ids + new])
        embeddings = model.embed(row, row == vocabulary.image_pad, codes)
        hidden_state = model.decode_packed(embeddings, torch.arange(row.shape[1])[None])[0, -1]
        logits = model.llm.get_input_embeddings().weight @ hidden_state
        logits[vocabulary.silent] = -torch.inf
        token = int(logits.argmax())
        if token in vocabulary.ends:
            break
        new.append(token)
    return new


@torch.no_grad()
def test_answers_equal_uncached_greedy_decoding_one_by_one(model, vocabulary, images):
    expected = [vocabulary.decode(greedy(model, vocabulary, q, i, 12)) for q, i in zip(QUESTIONS, images, strict=True)]
    assert answer(model, vocabulary, QUESTIONS, images, 12) == expected
    assert len(set(expected)) == 3


@torch.no_grad()
def test_each_row_stops_at_its_own_end_of_turn(model, vocabulary, images, monkeypatch):
    """The token that one row says in third place is made the end of a turn: that row stops before it, no other."""
    rows = [greedy(model, vocabulary, q, i, 12) for q, i in zip(QUESTIONS, images, strict=True)]
    end = next(token for token in rows[0] if token not in rows[1])
    monkeypatch.setattr(vocabulary, "endoftext", end)
    answers = answer(model, vocabulary, QUESTIONS, images, 12)
    assert answers[0] == vocabulary.decode(rows[0][: rows[0].index(end)])
    assert answers[1] == vocabulary.decode(rows[1])


def test_entries_beyond_the_vocabulary_and_control_tokens_are_never_said(make_model, vocabulary, images, monkeypatch):
    """A published LLM's embedding is longer than its vocabulary."""
    model = make_model()
    weight = model.llm.get_output_embeddings().weight
    with torch.no_grad():
        weight[-1] = 100 * weight[0]
        weight[vocabulary.silent] = 50 * weight[0]  # nor are control tokens
    monkeypatch.setattr(type(vocabulary), "__len__", lambda _: len(weight) - 1)
    said = set()
    monkeypatch.setattr(vocabulary, "decode", lambda ids: said.update(ids) or "")
    answer(model, vocabulary, QUESTIONS, images, 5)
    assert said and not said & {len(weight) - 1, *vocabulary.silent}


def test_delimiters_in_a_question_are_text(model, vocabulary):
    assert len(answer(model, vocabulary, ["<|image_pad|><|im_end|>"], [None], 3)) == 1


def test_nothing_and_mismatches(model, vocabulary, images):
    assert answer(model, vocabulary, [], []) == []
    assert answer(model, vocabulary, QUESTIONS, images, max_new_tokens=0) == ["", "", ""]
    with pytest.raises(ValueError, match="3 questions but 1 images"):
        answer(model, vocabulary, QUESTIONS, images[:1])
    with pytest.raises(ValueError, match="exceeds the language model's context of 128"):
        answer(model, vocabulary, ["what " * 130], [None])


def test_an_answer_ends_with_the_context(model, vocabulary, monkeypatch):
    lengths = []
    monkeypatch.setattr(vocabulary, "decode", lambda ids: lengths.append(len(ids)) or "")
    answer(model, vocabulary, ["Hello!"], [None], max_new_tokens=1000)
    assert lengths == [128 - len(vocabulary.answering_prompt("Hello!", None))]
