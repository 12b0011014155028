"""Safety of inputs and outputs: detectors, policies, red teams. Secrets are already struck out by `core.redact`."""
