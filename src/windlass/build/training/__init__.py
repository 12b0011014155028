"""Pre-training: from a corpus and a tokenizer to a model artifact. `pretrain` is the whole path; begin reading there.

| | |
|---|---|
| what is asked | `settings`, read from a `recipe`; `sizes` derives the rest from one dial |
| before the run | `checks`: inputs, sizes, memory, disk; `--check` stops behind them |
| the examples | `data`: tokens on disk, windows, hidden tokens, gaps, pairs |
| a step | `objectives` over the `head`, then `optim`, all in the `loop` |
| on the road | `pace` (the clock), `guard` (divergence), `interrupt` (Ctrl-C), `measuring` |
| where it runs | `compiling`, `memory`, `distributed` |
| surviving | `checkpoints` |
| before and after | `start` and `bigram` (first weights), `job` (all opened), `storing` and `card` (the artifact) |
"""
