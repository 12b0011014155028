"""Adapters: small learned corrections of a frozen model."""

from __future__ import annotations

from windlass.build.adapt.contrastive import AdaptSettings, Examples, info_nce, train_adapter

__all__ = ["AdaptSettings", "Examples", "info_nce", "train_adapter"]
