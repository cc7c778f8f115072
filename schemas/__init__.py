"""What crosses a boundary of Residual, and no more: readings, alerts, dead letters, the model manifest, settings."""
