"""The records of the control plane: what they are, and how documents are read."""

from coreflow._moved import forward

__getattr__ = forward(__name__)
