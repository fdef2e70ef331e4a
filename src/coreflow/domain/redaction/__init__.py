"""Take secrets out of texts, in every spelling that they may have there."""

from coreflow._moved import forward

__getattr__ = forward(__name__)
