"""Statistics of comparisons, numpy only: intervals, paired differences, power, multiplicity.

Evan Miller, "Adding Error Bars to Evals" (arXiv 2411.00640), is the map: a score is a mean over questions drawn
from a larger world, questions come in clusters, and two systems are compared question by question.
"""
