"""Dialogues against an implementation without cache, and their ids against training documents."""

import math
from dataclasses import replace

import pytest
import torch

import mllm.dialogue
from data.documents import ImageRef, Turn, conversation_document
from heads.sampling import SamplingConfig
from mllm.dialogue import ImagePiece, TextPiece, TextSampling, generate, message_of, stream
from mllm.messages import Message, read_messages
from tokenizer import DualCodes

CONTEXT = 256
GREEDY = SamplingConfig(cfg=2.0, temperature=0.0)


class Store:
    """What a training document needs of a code store."""

    num_patches = 4


@pytest.fixture
def model(make_model):
    """With room for some turns, which the tiny vocabulary spells letter by letter."""
    return make_model(llm=replace(make_model().config.llm, max_position_embeddings=CONTEXT))


def image(seed: int) -> DualCodes:
    return DualCodes(*torch.randint(8, (2, 4, 3), generator=torch.Generator().manual_seed(seed)))


@pytest.fixture
def scripted(monkeypatch):
    """scripted({place: id}): the tokens that the model says at these places of a reply, whatever their probability."""

    def script(tokens: dict[int, int]) -> list[torch.Tensor]:
        """Returns the logits of all tokens, as they come."""
        seen: list[torch.Tensor] = []
        original = mllm.dialogue.draw

        def draw(logits, *rest):
            seen.append(logits)
            return torch.tensor([tokens[len(seen) - 1]]) if len(seen) - 1 in tokens else original(logits, *rest)

        monkeypatch.setattr(mllm.dialogue, "draw", draw)
        return seen

    return script


def spell(vocabulary, text: str, *ends: int) -> dict[int, int]:
    return dict(enumerate([*vocabulary.encode(text), *ends]))


CONVERSATION = [
    Message("system", ["Be kind."]),
    Message("user", ["Draw a cat."]),
    Message("assistant", ["\nHere it is: ", image(0), "\nDo you like it?"]),
    Message("user", [image(1), "\n", image(2), "\nWhich ", "one?"]),
    Message("assistant", [image(3)]),
    Message("user", ["Thanks <|im_end|>"]),
    Message("assistant", ["Bye."]),
]


def test_a_conversation_is_spelt_as_in_training(model, vocabulary):
    turns = [Turn(role, [s if isinstance(s, str) else ImageRef(Store(), 0) for s in segments])  # type: ignore[arg-type]
             for role, segments in CONVERSATION]  # fmt: skip
    for place in (2, 4, 6):
        document = conversation_document(vocabulary, turns[: place + 1], "k")
        prompt = read_messages(vocabulary, CONVERSATION[:place], model)
        assert document.input_ids[: len(prompt.ids)].tolist() == prompt.ids
        learned = (document.labels != -100) | document.target_mask
        assert learned[len(prompt.ids) :].all()  # and the reply is what follows
        assert prompt.images == [s for m in CONVERSATION[:place] for s in m.segments if isinstance(s, DualCodes)]


def test_one_question_is_spelt_as_answering_does(model, vocabulary):
    prompt = read_messages(vocabulary, [Message("user", [image(0), "\nWhat is this?"])], model)
    assert prompt.ids == vocabulary.answering_prompt("What is this?", 4)


def uncached(model, vocabulary, ids, images) -> torch.Tensor:
    """The hidden state at the end of a context: everything anew, one row, no padding."""
    row = torch.tensor([ids])
    codes = DualCodes(*(torch.stack(part) for part in zip(*images, strict=True)))
    embeddings = model.embed(row, row == vocabulary.image_pad, codes)
    return model.decode_packed(embeddings, torch.arange(row.shape[1])[None])[0, -1]


def uncached_image(model, vocabulary, ids, images, cfg: float) -> DualCodes:
    """Greedy codes after a context that ends with an image's opening, patch by patch and depth by depth."""
    codes = torch.zeros(2, 4, 3, dtype=torch.int64)
    for patch in range(4):
        states = []
        for context, before in ((ids, images), (vocabulary.drawing_prompt(None), [])):
            row = torch.tensor([context + [0] * patch])
            seen = [*before, DualCodes(*codes)]
            stacked = DualCodes(*(torch.stack(part) for part in zip(*seen, strict=True)))
            embedded = model.visual_embedding(model.codebooks.sums(stacked))
            embeddings = model.llm.get_input_embeddings()(row)
            embeddings[row == vocabulary.image_pad] = embedded[:-1].flatten(0, 1)
            embeddings[0, len(context) :] = embedded[-1, :patch]
            states.append(model.decode_packed(embeddings, torch.arange(row.shape[1])[None])[0, -1])
        for i, branch in enumerate(("pixel", "semantic")):
            head = getattr(model, f"{branch}_head")
            for depth in range(3):
                vectors = model.codebooks.vectors(branch, codes[i, patch]).repeat(2, 1, 1)
                logits = head(torch.stack(states), vectors)[:, depth] @ head.classifiers.weight[depth].T
                codes[i, patch, depth] = (logits[1] + cfg * (logits[0] - logits[1])).argmax()
    return DualCodes(*codes)


@torch.no_grad()
def test_a_reply_with_an_image_equals_one_without_any_cache(model, vocabulary, scripted):
    """Three tokens of text, an image, four tokens; after images of both sides in the context."""
    scripted({3: vocabulary.vision_start})
    messages = CONVERSATION[:4]
    reply = generate(model, vocabulary, messages, TextSampling(max_new_tokens=7), GREEDY)

    prompt = read_messages(vocabulary, messages, model)
    ids, images, texts = [*prompt.ids], [*prompt.images], [[], []]
    weight = model.llm.get_input_embeddings().weight
    for place in range(7):
        if place == 3:
            ids.append(vocabulary.vision_start)
            images.append(uncached_image(model, vocabulary, ids, images, 2.0))
            ids += vocabulary.image(4)[1:]
        logits = weight @ uncached(model, vocabulary, ids, images)
        logits[[token for token in vocabulary.silent if token != vocabulary.vision_start]] = -math.inf
        ids.append(int(logits.argmax()))
        if ids[-1] == vocabulary.im_end:
            break
        texts[place >= 3].append(ids[-1])
    assert [len(text) for text in texts] == [3, 4]
    assert reply.role == "assistant"
    first, drawn, second = reply.segments
    assert [first, second] == [vocabulary.decode(text) for text in texts]
    assert torch.equal(drawn.pixel, images[-1].pixel) and torch.equal(drawn.semantic, images[-1].semantic)


def test_pieces_of_a_reply(model, vocabulary, scripted):
    start, end = vocabulary.vision_start, vocabulary.im_end
    script = [*vocabulary.encode("größer 🙂"), start, start, *vocabulary.encode("!"), end]
    scripted(dict(enumerate(script)))
    pieces = list(stream(model, vocabulary, [Message("user", ["Two, please."])], sampling=GREEDY))
    texts = [piece.text for piece in pieces if isinstance(piece, TextPiece)]
    assert "".join(texts) == "größer 🙂!" and len(texts) > 5 and "\ufffd" not in "".join(texts)
    images = [(piece.codes.pixel.shape[0], piece.done) for piece in pieces if isinstance(piece, ImagePiece)]
    assert images == [(2, False), (4, True)] * 2
    reply = message_of(pieces)
    assert [type(segment) for segment in reply.segments] == [str, DualCodes, DualCodes, str]
    turns = [Turn("user", ["Two, please."]), Turn("assistant", ["größer 🙂", *[ImageRef(Store(), 0)] * 2, "!"])]  # type: ignore[list-item]
    document = conversation_document(vocabulary, [*turns, Turn("user", ["Thanks"])], "k")
    messages = [Message("user", ["Two, please."]), reply, Message("user", ["Thanks"])]
    expected = [*document.input_ids.tolist(), *vocabulary.assistant_start()]
    assert read_messages(vocabulary, messages, model).ids == expected


def test_half_a_character_at_the_end_is_shown_as_such(model, vocabulary, scripted):
    scripted(dict(enumerate([*vocabulary.encode("🙂")[:2], vocabulary.im_end])))
    assert generate(model, vocabulary, [Message("user", ["Hi"])]).segments == ["\ufffd"]


def test_the_seed_decides_words_and_images(model, vocabulary, scripted):
    warm = TextSampling(temperature=1.0, max_new_tokens=9)

    def said(seed: int) -> list[object]:
        scripted({2: vocabulary.vision_start})
        reply = generate(model, vocabulary, [Message("user", ["Hi"])], warm, SamplingConfig(), seed)
        return [s if isinstance(s, str) else s.pixel.tolist() for s in reply.segments]

    first, again, other = said(3), said(3), said(4)
    assert first == again and all(one != two for one, two in zip(first, other, strict=True))


def test_control_tokens_are_never_said(model, vocabulary, scripted):
    seen = scripted({0: 65, 1: vocabulary.im_end})
    generate(model, vocabulary, [Message("user", ["Hi"])], TextSampling(max_images=0))
    generate(model, vocabulary, [Message("user", ["Hi"])], TextSampling(max_new_tokens=1))
    banned = [token for token in vocabulary.silent if token != vocabulary.vision_start]
    for logits in seen:
        assert torch.isinf(logits[0, banned]).all()
    opening = [bool(torch.isinf(logits[0, vocabulary.vision_start])) for logits in seen]
    assert opening == [True, True, False]


def test_a_model_without_heads_opens_no_image(make_model, vocabulary, scripted):
    seen = scripted({1: vocabulary.im_end})
    generate(make_model(heads=None), vocabulary, [Message("user", ["Hi"])])
    assert torch.isinf(seen[0][0, vocabulary.vision_start])


@pytest.mark.parametrize("num_rows", [0, -1])
def test_previews_come_after_one_row_at_least(model, vocabulary, num_rows):
    with pytest.raises(ValueError, match=f"num_rows={num_rows} must be"):
        stream(model, vocabulary, [Message("user", ["Hi"])], num_rows=num_rows)


@pytest.mark.parametrize("seed", [-1, 1.5])
def test_a_seed_that_no_generator_takes_is_refused_at_once(model, vocabulary, seed):
    with pytest.raises(ValueError, match=f"seed {seed} must be"):
        stream(model, vocabulary, [Message("user", ["Hi"])], seed=seed)


def test_no_more_images_than_allowed(model, vocabulary, scripted):
    seen = scripted({0: vocabulary.vision_start, 2: vocabulary.im_end})
    reply = generate(model, vocabulary, [Message("user", ["Hi"])], TextSampling(max_images=1), GREEDY)
    assert sum(isinstance(segment, DualCodes) for segment in reply.segments) == 1
    assert [bool(torch.isinf(logits[0, vocabulary.vision_start])) for logits in seen] == [False, True, True]


def test_a_reply_ends_with_the_context(model, vocabulary, scripted):
    messages = [Message("user", ["what " * 40])]
    room = CONTEXT - len(read_messages(vocabulary, messages, model).ids)
    seen = scripted(dict.fromkeys(range(CONTEXT), 65))
    reply = generate(model, vocabulary, messages, TextSampling(max_new_tokens=10**9))
    assert len(seen) == room and reply.segments == [vocabulary.decode([65] * room)]


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        ([], "nothing to reply to"),
        ([Message("user", ["Hi"]), Message("assistant", ["Ho"])], "last message must be the user's"),
        ([Message("robot", ["Hi"])], "role 'robot'"),
        ([Message("user", [" ", "\n"])], "message 1 is empty"),
        ([Message("user", [DualCodes(*torch.zeros(2, 5, 3))])], r"shape \(5, 3\), not \(4, 3\)"),
        ([Message("user", [image(0)] * 40)], "40 images of 4 among them, but the language model's context is 256"),
        ([Message("user", ["what " * 200])], "context is 256: leave out"),
    ],
)
def test_mistakes_are_named_at_once(model, vocabulary, messages, sentence):
    with pytest.raises(ValueError, match=sentence):
        stream(model, vocabulary, messages)


def test_an_image_that_does_not_fit_is_an_error_when_it_is_opened(model, vocabulary, scripted):
    messages = [Message("user", [image(0)] * 38 + ["abcdef"])]
    room = CONTEXT - len(read_messages(vocabulary, messages, model).ids)
    assert 2 < room < 6
    scripted({1: vocabulary.vision_start})
    pieces = stream(model, vocabulary, messages, sampling=GREEDY)
    with pytest.raises(ValueError, match=f"only {room - 2} are left: leave out"):
        list(pieces)


@pytest.mark.parametrize(
    "wrong", [{"temperature": math.nan}, {"top_p": 2.0}, {"top_k": -1}, {"max_new_tokens": 0}, {"max_images": -1}]
)
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TextSampling(**wrong)
