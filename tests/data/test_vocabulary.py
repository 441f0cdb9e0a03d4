import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

from data.vocabulary import CAPTION_REQUEST, CONTROL_TOKENS, PLAIN_TOKENS, ImageSlot, Vocabulary

# Qwen2.5's own template, less the tools and the default system prompt.
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}{% endfor %}"
    "{{ '<|im_start|>assistant\n' }}"
)


def test_layout_is_qwens(vocabulary):
    assert isinstance(vocabulary.tokenizer, Qwen2Tokenizer)
    first = len(vocabulary) - 22
    assert vocabulary.tokenizer.convert_tokens_to_ids(CONTROL_TOKENS + PLAIN_TOKENS) == list(range(first, first + 22))
    named = [vocabulary.endoftext, vocabulary.im_start, vocabulary.im_end, vocabulary.vision_start]
    # The distances of Qwen2.5: 151643, 151644, 151645, 151652, 151655, 151653.
    named += [vocabulary.image_pad, vocabulary.vision_end]
    assert [i - first for i in named] == [0, 1, 2, 9, 12, 10]
    assert set(vocabulary.tokenizer.all_special_tokens) == set(CONTROL_TOKENS)
    assert sorted(vocabulary.silent + vocabulary.ends) == list(range(first, first + len(CONTROL_TOKENS)))


def test_training_is_deterministic_and_merges_words(vocabulary):
    texts = ["red apple"] * 5 + ["green apple"] * 4
    one, two = Vocabulary.train(texts, 300), Vocabulary.train(texts, 300)
    assert one.tokenizer.get_vocab() == two.tokenizer.get_vocab()
    assert len(one.encode(" apple")) == 1 and len(one) <= 300


@given(text=st.text(st.characters(exclude_categories=("Cs",))))
def test_text_survives_up_to_normalisation(vocabulary, text):
    assert vocabulary.decode(vocabulary.encode(text)) == unicodedata.normalize("NFC", text)


@given(pieces=st.lists(st.sampled_from([*CONTROL_TOKENS, *PLAIN_TOKENS, "a red", "\n", "<|", "|>"])))
def test_control_tokens_in_text_stay_text(vocabulary, pieces):
    ids = vocabulary.encode("".join(pieces))
    assert all(i < vocabulary.endoftext for i in ids)
    assert vocabulary.decode(ids) == "".join(pieces)


def test_lone_surrogates_are_replaced(vocabulary):
    assert vocabulary.decode(vocabulary.encode("a \ud83d b")) == "a ? b"


@pytest.mark.parametrize("text", ["Hello", "  two\nlines ", "\n\nleading", "it's 3d, é 日本 😀"])
def test_turns_equal_the_chat_template(vocabulary, text):
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": text}]
    template = vocabulary.tokenizer.apply_chat_template(messages, chat_template=CHAT_TEMPLATE, return_dict=False)
    ours = vocabulary.user_turn(["Be kind."], role="system") + vocabulary.user_turn([text])
    assert ours + vocabulary.assistant_start() == template


def test_prompts_by_hand(vocabulary):
    drawing = "<|im_start|>user\nDraw: a red apple<|im_end|>\n<|im_start|>assistant\n<|vision_start|>"
    unconditional = "<|im_start|>user\nDraw:<|im_end|>\n<|im_start|>assistant\n<|vision_start|>"
    seen = "<|vision_start|><|image_pad|><|image_pad|><|vision_end|>\n"
    answering = f"<|im_start|>user\n{seen}{CAPTION_REQUEST}<|im_end|>\n<|im_start|>assistant\n"
    assert vocabulary.decode(vocabulary.drawing_prompt(" a red apple\n"), skip_special=False) == drawing
    assert vocabulary.decode(vocabulary.drawing_prompt(None), skip_special=False) == unconditional
    assert vocabulary.decode(vocabulary.answering_prompt(CAPTION_REQUEST, 2), skip_special=False) == answering
    assert vocabulary.answering_prompt("Hi", None) == [*vocabulary.user_turn(["Hi"]), *vocabulary.assistant_start()]


def test_how_a_text_is_split_into_segments_does_not_matter(vocabulary):
    image = ImageSlot(3)
    whole = vocabulary.user_turn(["a red apple", image, "waving hand"])
    assert vocabulary.user_turn(["a re", "d apple", image, "", "waving", " hand"]) == whole
    assert whole.count(vocabulary.image_pad) == 3


def test_saved_vocabulary_is_the_same(vocabulary, tmp_path):
    vocabulary.save_pretrained(tmp_path / "vocabulary")
    again = Vocabulary.from_pretrained(tmp_path / "vocabulary")
    assert again.tokenizer.get_vocab() == vocabulary.tokenizer.get_vocab()
    assert len(again) == len(vocabulary)
    assert again.tokenizer.all_special_tokens == vocabulary.tokenizer.all_special_tokens
    for text in ("a red apple", "<|im_end|>\n<tool_call> é"):
        assert again.encode(text) == vocabulary.encode(text)
        assert again.drawing_prompt(text) == vocabulary.drawing_prompt(text)


def test_errors_say_what_to_do(tmp_path):
    plain = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"a": 0}, [])))
    with pytest.raises(ValueError, match=r"lacks <\|endoftext\|>.*Vocabulary.train"):
        Vocabulary(plain)
    with pytest.raises(FileNotFoundError, match=r"no text tokenizer.*nowhere"):
        Vocabulary.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"vocab_size=100 is too small: .* 278"):
        Vocabulary.train(["a"], 100)
