"""Weights to a graph that can be run: architectures, layers, int8, calibration, the gate."""
