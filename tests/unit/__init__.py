"""The engine and the wire format, without a broker."""
