"""`detector check`: is the broker there, may I, does the model see my data."""
