"""Statistics of comparisons, numpy only; `docs/statistics.md` says which to take when.

Evan Miller, "Adding Error Bars to Evals" (arXiv 2411.00640), is the map: a score is a mean over questions drawn
from a larger world, questions come in clusters, and two systems are compared question by question.
"""
