"""A shop: small, but its code hangs together in every way that code can."""
