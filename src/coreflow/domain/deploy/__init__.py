"""From records and observations to the ordered steps of a pass."""
