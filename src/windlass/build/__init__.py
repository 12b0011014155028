"""The builder's perspective: corpus, tokenizer, transformer, training, adapters."""
