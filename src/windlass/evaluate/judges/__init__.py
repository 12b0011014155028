"""Judges: what is asked of a model, or of a person, about an output; what came of it; how far it can be believed.

A judge is a file (`file`), a value (`judge`) and the words that a model reads (`wording`). What models say becomes one
judgement an item (`judgement`); how it stands to what people say is a calibration (`calibration`); and the mean of many
judgements, with that in its interval, is a finding (`finding`). Nobody is asked here: see `windlass.loop.judging`.
"""
