"""The demo's services; each runs as a program of its own."""
