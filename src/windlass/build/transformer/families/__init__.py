"""Model families: each file maps one family's `config.json` to a `TransformerConfig` and names its tensors.

The arithmetic stays in the blocks. A family that the blocks compute has no code here beyond those two tables.
"""
