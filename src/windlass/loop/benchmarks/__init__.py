"""Models on benchmarks in a workspace: opened by name, asked, and kept; and the way to lm-evaluation-harness."""
