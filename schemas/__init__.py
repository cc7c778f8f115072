"""What crosses a boundary of Residual, and nothing else: readings, alerts, dead letters, the model manifest, settings."""
