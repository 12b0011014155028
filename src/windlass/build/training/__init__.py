"""Pre-training: from a corpus and a tokenizer to a model artifact.

`recipe` derives every size from one dial; `shard` and `batches` feed the tokens; `bigram` gives a head start;
`objectives`, `optimizers` and `schedule` are the arithmetic of a step; `loop` runs steps, `pace` keeps them within the
time; `checkpoint` and `saving` make them survive; `workers`, `parallel` and `launch` share them among processes;
`heldout` measures; `pretrain` puts it together.
"""
