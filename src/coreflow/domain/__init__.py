"""The pure core: same arguments, same answer; no clock, no randomness, no input or output."""
