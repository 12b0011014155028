"""Pre-training: from a corpus and a tokenizer to a model artifact.

`recipe` derives every size from one dial; `shard` and `batches` feed the tokens; `objective`, `optimizers` and
`schedule` are the arithmetic of a step; `loop` runs steps; `checkpoint` makes them survive; `heldout` measures;
`pretrain` puts it together.
"""
