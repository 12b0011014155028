"""Models that read whole texts: embedders, rerankers, classifiers."""
