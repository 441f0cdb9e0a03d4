"""One question, about a picture or not, and its answer: `dualtoken chat "What is this?"`."""

from data.images import load_image
from eval.load import load
from eval.pictures import encode_picture
from mllm.answer import answer


def ask(question: str, image: str | None, model_folder: str, max_new_tokens: int = 128) -> str:
    """The model's greedy answer to `question`, one token at least, about the picture file `image` if any."""
    if not question.strip():
        raise ValueError('the question is empty: ask something, such as "What is this?"')
    picture = load_image(image) if image else None
    unified = load(model_folder)
    codes = encode_picture(unified, picture) if picture is not None else None
    return answer(unified.model, unified.vocabulary, [question], [codes], max_new_tokens)[0]
