"""What runs a model's documents besides onnxruntime: OpenVINO, with the same int8 graph.

A loaded model enters and leaves by `choice.py`, which measures and checks both where asked to;
`standard_graph.py` writes a compiled graph in standard operators, `openvino_graph.py` runs it.
"""
