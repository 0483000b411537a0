"""Runs a model: texts enter at `pipeline`, and leave as one output for each, in order.

`loaded_model` loads what a run plan names: a tokenizer, a backend, and a backend for single texts.
A backend runs a compiled graph, the model's own ONNX file, or a table of vectors.
"""
