"""The demo: watches the machine that it runs on, provokes faults on it and shows that they are caught."""
