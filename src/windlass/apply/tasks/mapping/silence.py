"""When nobody answers: a server that is not running would else be asked for every item of a run, three times."""

from __future__ import annotations

from windlass.core.errors import ProviderError

_LONGEST = 20


class Silence:
    """Ends a run that had no answer at all. One item that fails says nothing of the next; the first twenty do."""

    def __init__(self) -> None:
        self._failed: int | None = 0

    def broken(self) -> None:
        """Somebody answered: from now on each item fails for itself."""
        self._failed = None

    def failed(self, error: Exception) -> None:
        """Raises the error of the twentieth item, if none before it was answered, or refused for what it is."""
        if not isinstance(error, ProviderError) or (error.status is not None and error.status < 500):
            self.broken()
        elif self._failed is not None:
            self._failed += 1
            if self._failed >= _LONGEST:
                raise error
