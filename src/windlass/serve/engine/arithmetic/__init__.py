"""How an engine multiplies and looks: policies for matrices, attention over many texts, native code for both."""
