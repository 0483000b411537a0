"""BM25 and its stop words: texts to sparse vectors, without a neural network."""
