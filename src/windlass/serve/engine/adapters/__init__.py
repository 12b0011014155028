"""Many LoRA adapters on one base."""
