"""Models of images: what is to be expected of a picture, and how its difference from that becomes a score."""
