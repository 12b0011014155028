"""Runs for other tools: each function writes one run's configuration, environment and metrics.

`files` writes CSV and JSON lines, `tensorboard` an event file, `mlflow` speaks to a tracking server. None needs the
other tool's package: the formats are small and public.
"""
