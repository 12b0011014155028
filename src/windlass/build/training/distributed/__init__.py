"""Several processes as one: who they are, what each holds, and how they are started."""
