"""The studio: a workspace as web pages, rendered by the server."""
