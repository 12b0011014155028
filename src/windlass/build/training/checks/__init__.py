"""What can be known before hours are spent: inputs, sizes, memory, disk."""
