"""The platform of workloads: bindings, and the Corestores that provide them."""
