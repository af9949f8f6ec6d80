"""Drawing the steps of a workflow: where they stand, and as SVG. Pure: for the dashboard and for `jetflow graph`."""
