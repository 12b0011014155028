"""Adapters of models: few trained numbers beside many that stay as they are."""
