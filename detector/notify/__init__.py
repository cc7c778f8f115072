"""From the alerts topic to people: what is told, to whom, and when; see ``desk``."""
