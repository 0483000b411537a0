"""Handles texts longer than the model reads: splits, encodes in windows, or refuses them.

Texts enter at `overflow.LongTexts`, which asks `splitting` where to cut, and leave as vectors or
chunks.
"""
