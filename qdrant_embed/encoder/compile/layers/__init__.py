"""The layers that architectures are made of: `transformer` puts them together to a graph."""
