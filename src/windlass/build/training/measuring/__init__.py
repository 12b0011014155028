"""What a run is worth: held-out text, samples, tokens and FLOPs a second, and the law of scale."""
