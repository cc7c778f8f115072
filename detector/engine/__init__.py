"""Readings in, alerts out: pure computation on arrays, no Kafka, no files, no wall clock."""
