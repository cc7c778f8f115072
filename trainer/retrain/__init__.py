"""Every night: learn again from what was normal, compare, promote or not."""
