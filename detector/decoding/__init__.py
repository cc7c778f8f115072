"""From the bytes of a poll to columns. A format is one module with a class that has ``decode``."""
