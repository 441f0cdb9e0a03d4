"""`dualtoken chat`: one question, about a picture or not, and its answer."""

from data.images import ImageTransform, load_image
from eval.load import load
from mllm.answer import answer
from tokenizer import DualCodes


def ask(question: str, image: str | None, model_folder: str, max_new_tokens: int = 128) -> str:
    """The model's greedy answer to `question`, about the picture file `image` where one is given."""
    if not question.strip():
        raise ValueError('the question is empty: ask something, such as "What is this?"')
    if max_new_tokens < 1:
        raise ValueError(f"--max-new-tokens {max_new_tokens}: an answer has at least one")
    picture = load_image(image) if image else None
    unified = load(model_folder)
    codes = None
    if picture is not None:
        transform = ImageTransform(unified.tokenizer.image_size, unified.tokenizer.config.crop)
        pixel_values = transform(picture).unsqueeze(0).to(unified.model.device)
        encoded = unified.tokenizer.encode(pixel_values)
        codes = DualCodes(encoded.pixel[0], encoded.semantic[0])
    return answer(unified.model, unified.vocabulary, [question], [codes], max_new_tokens)[0]
