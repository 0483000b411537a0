"""Turns text into vectors. Nothing here knows about Qdrant; the two halves meet at `interfaces`.

Texts enter at `text` and `sparse`. `model` finds a model's files (`files`), reads its facts
(`facts`), plans and compiles it (`compile`) and loads it (`run`), each when first needed.
"""
