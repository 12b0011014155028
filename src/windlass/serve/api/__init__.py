"""The endpoints of the HTTP API, one a file.

`fields` reads and describes JSON objects, `wire` holds what several endpoints share, `context` the models and the
house rules, `routes` puts the endpoints together, and `openapi` describes them.
"""
