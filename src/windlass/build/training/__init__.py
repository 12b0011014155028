"""Pre-training: from a corpus and a tokenizer to a model artifact.

`recipe` derives every size from one dial; `shard` and `batches` feed the tokens; `bigram` gives a head start;
`objective`, `optimizers` and `schedule` are the arithmetic of a step; `loop` runs steps, `pace` keeps them within the
time; `checkpoint` makes them survive; `heldout` measures; `pretrain` puts it together.
"""
