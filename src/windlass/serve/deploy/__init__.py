"""A model or a release as a folder that starts it elsewhere: container, compose, Kubernetes, systemd, vLLM.

bundle.py     the part of a workspace that must travel along
sizing.py     how much memory that takes
writing.py    the files, rendered from `templates/`
"""
