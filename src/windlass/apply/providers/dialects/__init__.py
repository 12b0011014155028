"""How each provider's API says a request and its answer. Nothing here sends anything."""
