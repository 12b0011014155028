"""What builders and users share: values, errors, configuration, the workspace, artifacts and traces.

Never imports torch, nor any other windlass folder.
"""
