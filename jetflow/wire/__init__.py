"""The wire format: subjects, headers, record bodies. ``docs/wire.md`` describes it for other languages."""
