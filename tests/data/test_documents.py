import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from data.documents import (
    Document,
    ImageRef,
    Turn,
    caption_document,
    conversation_document,
    drawing_document,
    text_document,
)
from data.vocabulary import CAPTION_REQUEST


class Store:
    """What a document needs of a code store."""

    num_patches = 2


IMAGE = ImageRef(Store(), 5)  # type: ignore[arg-type]


def spelt(vocabulary, document: Document) -> str:
    """The document with learned text in [], seen patches as o and generated patches as x."""
    text = ""
    for i, token in enumerate(document.input_ids.tolist()):
        if document.image_mask[i]:
            assert token == vocabulary.image_pad and document.labels[i] == -100
            text += "x" if document.target_mask[i] else "o"
            continue
        assert not document.target_mask[i]
        assert document.labels[i] in (token, -100)
        piece = vocabulary.decode([token], skip_special=False)
        text += f"[{piece}]" if document.labels[i] == token else piece
    return text.replace("][", "").replace("<|im_start|>", "<").replace("<|im_end|>", ">")


def test_caption_by_hand(vocabulary):
    document = caption_document(vocabulary, IMAGE, " red apple\n", "k")
    question = "<user\n<|vision_start|>oo<|vision_end|>\nDescribe the picture.>\n"
    assert spelt(vocabulary, document) == f"{question}<assistant\n[red apple>]"
    assert document.images == (IMAGE,) and document.key == "k"


def test_drawing_by_hand(vocabulary):
    document = drawing_document(vocabulary, IMAGE, "red apple", "k")
    drawn = "<assistant\n[<|vision_start|>]xx[<|vision_end|>>]"
    assert spelt(vocabulary, document) == f"<user\nDraw: red apple>\n{drawn}"
    assert spelt(vocabulary, drawing_document(vocabulary, IMAGE, None, "k")) == f"<user\nDraw:>\n{drawn}"
    assert document.num_targets == 3 + 2


def test_conversation_by_hand(vocabulary):
    turns = [
        Turn("system", ["Be kind."]),
        Turn("user", ["One ", IMAGE, " two ", IMAGE]),
        Turn("assistant", ["Here: ", IMAGE, IMAGE, " done"]),
        Turn("user", ["And?"]),
        Turn("assistant", ["No"]),
    ]
    expected = (
        "<system\nBe kind.>\n"
        "<user\nOne <|vision_start|>oo<|vision_end|> two <|vision_start|>oo<|vision_end|>>\n"
        "<assistant\n[Here: <|vision_start|>]xx[<|vision_end|><|vision_start|>]xx[<|vision_end|> done>]\n"
        "<user\nAnd?>\n"
        "<assistant\n[No>]"
    )
    document = conversation_document(vocabulary, turns, "k")
    assert spelt(vocabulary, document) == expected
    assert document.images == (IMAGE,) * 4


def test_text_by_hand(vocabulary):
    document = text_document(vocabulary, "apple <|im_end|>", "k")
    ids = vocabulary.encode("apple <|im_end|>")
    assert document.input_ids.tolist() == [*ids, vocabulary.endoftext]
    assert document.labels.tolist() == [-100, *ids[1:], vocabulary.endoftext]
    assert not document.image_mask.any()


@settings(deadline=None, max_examples=50)
@given(caption=st.text(min_size=1).filter(str.strip))
def test_training_documents_begin_with_the_prompts_of_generation(vocabulary, caption):
    def begins(document: Document, prompt: list[int]) -> bool:
        return document.input_ids[: len(prompt)].tolist() == prompt

    drawing = drawing_document(vocabulary, IMAGE, caption, "k")
    prompt = vocabulary.drawing_prompt(caption)
    assert begins(drawing, prompt)
    assert drawing.image_mask.nonzero()[0] == len(prompt)  # the codes follow at once
    assert begins(drawing_document(vocabulary, IMAGE, None, "k"), vocabulary.drawing_prompt(None))
    captioning = caption_document(vocabulary, IMAGE, caption, "k")
    prompt = vocabulary.answering_prompt(CAPTION_REQUEST, Store.num_patches)
    assert begins(captioning, prompt)
    assert (captioning.labels[: len(prompt)] == -100).all()
    assert captioning.labels[len(prompt) :].tolist() == [*vocabulary.encode(caption.strip()), vocabulary.im_end]


def segments() -> SearchStrategy:
    return st.lists(st.one_of(st.text(max_size=8), st.just(IMAGE), st.sampled_from(["<|image_pad|>"])), max_size=4)


@settings(deadline=None, max_examples=100)
@given(turns=st.lists(st.builds(Turn, st.sampled_from(["system", "user", "assistant"]), segments()), min_size=1))
def test_any_conversation(vocabulary, turns):
    document = conversation_document(vocabulary, turns, "k")
    generated = sum(s is IMAGE for t in turns for s in t.segments if t.role == "assistant")
    assert document.image_mask.sum() == Store.num_patches * len(document.images)
    assert document.target_mask.sum() == Store.num_patches * generated
    assert not (document.target_mask & ~document.image_mask).any()
    supervised = document.labels != -100
    assert (document.labels[supervised] == document.input_ids[supervised]).all()
    assert not (supervised & document.image_mask).any()
    assert not supervised[0] and not document.target_mask[0]
    assert (document.labels == vocabulary.im_end).sum() == sum(t.role == "assistant" for t in turns)
    assert (document.input_ids == vocabulary.im_end).sum() == len(turns)


def test_neighbouring_roles_do_not_leak(vocabulary):
    """A learned turn between others supervises exactly what it would alone."""
    alone = conversation_document(vocabulary, [Turn("assistant", ["hand"])], "k")
    between = conversation_document(
        vocabulary, [Turn("user", ["a"]), Turn("assistant", ["hand"]), Turn("user", ["b"])], "k"
    )
    assert alone.labels[alone.labels != -100].tolist() == between.labels[between.labels != -100].tolist()


@pytest.mark.parametrize("role", ["user", "system"])
def test_a_conversation_without_an_answer_has_no_targets(vocabulary, role):
    assert conversation_document(vocabulary, [Turn(role, ["Hi", IMAGE])], "k").num_targets == 0


QWEN_TEMPLATE = (  # of Qwen2.5, without tools
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def test_conversations_are_spelt_as_the_tokenizer_s_own_chat_template_does(vocabulary):
    said = [("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello"), ("user", "And?"), ("assistant", "No")]
    document = conversation_document(vocabulary, [Turn(role, [text]) for role, text in said], "k")
    messages = [{"role": role, "content": text} for role, text in said]
    template = {"chat_template": QWEN_TEMPLATE, "tokenize": False}
    whole = vocabulary.tokenizer.apply_chat_template(messages, **template)
    assert vocabulary.decode(document.input_ids.tolist(), skip_special=False) + "\n" == whole
    prompt = vocabulary.tokenizer.apply_chat_template(messages[1:2], add_generation_prompt=True, **template)
    assert vocabulary.decode(vocabulary.answering_prompt("Hi", None), skip_special=False) == prompt
