"""GGUF, the file format of llama.cpp, written and read without it.

container.py      key-values, the directory of tensors, their bytes
blocks.py         the types of tensors: floats and blocks of small whole numbers
architectures.py  what a model is called there, and what its tensors are called
metadata.py       a configuration as key-values
vocabulary.py     a tokenizer as key-values
exporting.py      a model's folder -> a file
importing.py      a file -> a decoder, or a model's folder
"""
