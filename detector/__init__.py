"""The detector: scores windows of readings with an exported model and publishes incidents. Never loads torch."""
