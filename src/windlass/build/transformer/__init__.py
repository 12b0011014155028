"""The transformer, one readable file per idea.

`decoder.py`, `encoder.py` and `encoder_decoder.py` say how each architecture is used; all three are one `stack.py`,
or two, of the same `block.py`, between the two ends of `vocabulary.py`. `config.py` describes every model, `model.py`
makes it, `init.py` fills it, and `hf.py` reads and writes it in the names of `families/`.

Letters at the end of a tensor's name give its shape:

    B  batch            T  positions of this call     S  positions attended to (cache + this call)
    C  hidden width     F  inner width of the MLP     V  vocabulary
    H  query heads      K  key/value heads            D  width of one head
"""
