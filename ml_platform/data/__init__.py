"""Tables: reading sources, checking and loading them, cutting them into parts."""
