"""config.json of an exported model for transformers' Auto classes.

Reading such a config registers the classes that read the rest. They are not registered earlier, for they import torch
and our whole model.
"""

from typing import Any

from transformers.configuration_utils import PreTrainedConfig


class DualTokenConfig(PreTrainedConfig):
    """What mllm/pretrained.py writes: `config` (ours), `visual` (of the tokenizer), `llm` (the LLM's), `vocab_size`."""

    model_type = "dualtoken"

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        register_classes()
        return super().from_dict(config_dict, **kwargs)


def register_classes() -> None:
    from transformers import AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM, AutoProcessor

    from mllm.hugging_face import DualTokenModel
    from mllm.processor import DualTokenProcessor

    for auto in (AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM):
        auto.register(DualTokenConfig, DualTokenModel, exist_ok=True)
    AutoProcessor.register(DualTokenConfig, DualTokenProcessor, exist_ok=True)
