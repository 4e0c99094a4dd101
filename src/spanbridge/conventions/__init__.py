"""What a span says about a protocol: names, attributes, propagation; one module per protocol."""
