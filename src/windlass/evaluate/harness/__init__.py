"""Models on benchmarks: what is asked of them, and what their replies are worth. `docs/benchmarks.md` tells how.

definitions  a benchmark by name or file        rows       the user's data
benchmark    what all kinds have in common      items      a benchmark on data, ready to be asked
choice, schema, continuation, answer, program, perplexity: the kinds
requests     what is asked of a model           running    asks, in batches, and scores item by item
framing      instructions and examples          journal    replies on the disk
"""
