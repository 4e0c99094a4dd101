"""What every instrumentor stands on: patching (where), tracing (the engine), guard, status, options."""
