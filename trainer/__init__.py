"""The trainer: fits models on normal data, exports and calibrates them."""
