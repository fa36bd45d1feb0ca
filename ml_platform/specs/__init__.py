"""WHAT: frozen pydantic values. References, contracts, and the specs of tasks and resources."""
