"""Where readings come from and alerts go to: Kafka, memory, files; and what others may ask about the process."""
