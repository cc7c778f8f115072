"""What every page shares: its style, tables and words. Pages are self-contained: no scripts, nothing fetched."""
