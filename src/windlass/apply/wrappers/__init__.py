"""What stands before a model and is called as it is: budgets, kept answers, windows, stand-ins."""
