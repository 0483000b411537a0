"""Texts to sparse vectors without a neural network: BM25, and a table of the weights of tokens."""
