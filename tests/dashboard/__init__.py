"""The dashboard: its API over real HTTP against a real server, its mounting, its layout."""
