"""What is said of training runs: side by side, beside baselines, as curves, and by the law that they follow."""
