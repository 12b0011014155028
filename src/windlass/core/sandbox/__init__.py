"""Where text that a model wrote runs as code, or keeps a regular expression busy: in a process that is locked in."""
