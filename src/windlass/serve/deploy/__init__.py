"""A model or a release as a folder that starts it elsewhere: container, compose, Kubernetes, systemd, vLLM.

bundle.py     the part of a workspace that must travel along
writing.py    the files, rendered from `templates/`
"""
