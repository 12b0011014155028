"""The transformer, one readable file per idea; `decoder.py` puts them together and describes how to use it.

Letters at the end of a tensor's name give its shape:

    B  batch            T  positions of this call     S  positions attended to (cache + this call)
    C  hidden width     F  inner width of the MLP     V  vocabulary
    H  query heads      K  key/value heads            D  width of one head
"""
