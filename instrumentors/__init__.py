"""One module per library, named as its entry point in the group `opentelemetry_instrumentor`."""
