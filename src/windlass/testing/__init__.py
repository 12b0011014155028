"""For the tests of applications: models that answer what the test says, without a network."""

from windlass.testing.scripted import Scripted

__all__ = ["Scripted"]
