"""A loaded model: session, tokenizer, batches, threads, single queries."""
