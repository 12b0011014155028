"""Pre-training: from a corpus and a tokenizer to a model artifact. `pretrain` is the whole path; begin reading there.

| | |
|---|---|
| what is asked | `settings`, read from a `recipe`; `sizes` derives the rest from one dial |
| before the run | `preflight`, `checking` (the dry run), `footprint` (its memory) |
| the data | `shard` (tokens on disk), `batches` (windows), `masking`, `spans`, `pairs`, chosen by `examples` |
| a step | `objectives` over the `head`, `optimizers` (`muon`, `adamw8`), `schedule`, `average`, all in the `loop` |
| on the road | `pace` (the clock), `guard` (divergence), `heldout`, `samples`, `meters`, `flops` |
| where it runs | `compiling`, `memory`, `workers`, `parallel`, `pieces`, `launch` |
| surviving | `checkpoint`, `saving`, `interrupt` |
| before and after | `start` and `bigram` (first weights), `storing` and `card` (the artifact) |
"""
