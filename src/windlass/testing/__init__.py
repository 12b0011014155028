"""For the tests of applications: models that answer without a network, and traffic recorded once.

`windlass.testing.cassettes` holds `Cassette`: it is imported from there, as HTTP comes with it.
"""

from windlass.testing.loopback import BeyondLoopback, loopback_only
from windlass.testing.random_model import Random
from windlass.testing.scripted import Scripted

__all__ = ["BeyondLoopback", "Random", "Scripted", "loopback_only"]
