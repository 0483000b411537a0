"""The graphs of the architectures that are compiled: `registry` finds the one for a config.

`compile.layers` has what they share; each architecture has a file with what is its own. In go a
config (`encoder.facts.architectures`), weights and a spec, out comes a graph to be saved.
"""
