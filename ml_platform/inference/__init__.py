"""Models that take raw rows, and what scores tables with them."""
