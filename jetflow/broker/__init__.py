"""Everything that speaks to NATS. The only package that imports ``nats``."""
