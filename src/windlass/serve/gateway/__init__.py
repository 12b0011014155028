"""The gateway: the OpenAI endpoints in front of other providers and engines, with their keys, prices and faults."""
