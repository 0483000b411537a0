"""Text to vectors. Nothing here knows about Qdrant; `interfaces` is where the two halves meet."""
