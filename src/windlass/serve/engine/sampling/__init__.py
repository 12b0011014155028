"""From logits to tokens: what a request may ask for, the draw, log-probabilities, and the search by beams."""
