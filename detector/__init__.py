"""The detector: reads readings, scores windows of them with an exported model, publishes incidents. Never loads torch."""
