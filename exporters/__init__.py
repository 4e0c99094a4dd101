"""Where spans go: one package per receiver."""
