"""What workloads get from the platform: bindings, and the Corestores that provide them."""
