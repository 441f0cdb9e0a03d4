"""The unified multimodal LLM: embedding, decoder, depth heads, loss, generation (arXiv 2503.14324, section 3.3)."""
