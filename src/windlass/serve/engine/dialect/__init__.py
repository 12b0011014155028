"""How a model's chat template writes tool calls and reasoning, and how its answers are read back."""
