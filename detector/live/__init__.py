"""The page to look at: ``board`` holds what is shown, ``reader`` fills it from topics, ``server`` shows it."""
