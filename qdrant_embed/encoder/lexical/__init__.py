"""BM25 and its stop words: sparse vectors without a network."""
