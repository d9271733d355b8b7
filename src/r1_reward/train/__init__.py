"""Training: cold-start SFT and StableReinforce on TRL."""
