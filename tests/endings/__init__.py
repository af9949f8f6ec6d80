"""Every way in which a run can end, and what the broker's troubles do to it: on a real server, one concept a test."""
