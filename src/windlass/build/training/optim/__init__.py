"""What changes the weights: Muon and AdamW in groups, in 32 or 8 bits, the schedule of their rates, and an average."""
