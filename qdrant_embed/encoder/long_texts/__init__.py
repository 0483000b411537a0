"""Texts longer than the model reads: split, encoded in windows, or refused."""
