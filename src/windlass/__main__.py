"""`python -m windlass` is `windlass`."""

import sys

from windlass.cli.main import main

sys.exit(main())
