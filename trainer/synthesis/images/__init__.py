"""Made images: a generator of a camera's pictures."""
