"""One collection: its stamp, its vectors and their encoders, its options at creation."""
