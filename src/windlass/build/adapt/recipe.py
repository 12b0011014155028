"""The recipes of tunings."""

from __future__ import annotations

from windlass.build.adapt.settings import TuneSettings
from windlass.build.training.recipe import Recipes

TUNING = Recipes("windlass.build.adapt", TuneSettings)
