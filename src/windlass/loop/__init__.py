"""The loop: feedback, harvest, candidate, turn, release, lineage; and the composition root that joins all rooms."""
