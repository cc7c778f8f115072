"""What a model can see: the smallest fault of each kind that is caught under its promise, and how fast."""
