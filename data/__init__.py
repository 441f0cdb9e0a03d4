"""Files to batches: pictures, shards, vocabulary, codes, documents, mixture, packing and the loader."""
