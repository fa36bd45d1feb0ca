"""Model families: what they are made of, and what trains them."""
