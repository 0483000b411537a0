"""What both clients do, step by step, written once."""
