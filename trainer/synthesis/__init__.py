"""Synthetic normal data: generators that learn a group of streams, and the report that says how good they are."""
