"""Compile a model: weights to an ONNX graph, int8 where its vectors stay near enough.

`compiler` takes weights, config and spec, and leaves the graph in the cache folder. On its way
`architectures` build the graph, `calibration` records activations, `quantize` turns linear layers
into int8, `unfinished` keeps those that are done, and `mixed_precision` decides which stay float32.
"""
