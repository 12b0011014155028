"""Evaluation: metrics, statistics, the exam, experiments and the gate. Pure functions over arrays, numpy only."""
