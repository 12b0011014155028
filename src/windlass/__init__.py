"""windlass: build, serve, apply, watch and improve generative-AI systems on your own machine.

The package is two perspectives on one workspace. `windlass.build` makes models (torch), `windlass.apply`
uses them (no torch), `windlass.serve` puts them behind an OpenAI-compatible API, and `windlass.loop`
turns what was seen in production into the next, measurably better version. Importing this module is cheap
and imports none of them.
"""

__version__ = "0.1.0"
