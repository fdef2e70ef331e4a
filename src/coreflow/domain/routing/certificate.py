"""A certificate that was checked, as a value: what it takes to read one is large, and stays out of here."""

from attrs import field, frozen

KEPT_SHARE = 0.8
"""Of its whole life, the part after which a certificate is asked for anew."""


@frozen(kw_only=True)
class Certificate:
    """A certificate chain with the key that belongs to it. Times are seconds since 1970."""

    chain: str = field(repr=False)
    """PEM: the leaf, and after each certificate the one of its issuer, as far as they are known."""
    key: str = field(repr=False)
    names: tuple[str, ...]
    """Host names that it covers, `*.` for one label."""
    issuer: str
    not_before: float
    not_after: float
    """The end of the leaf or of its issuer's certificate, whichever comes first."""
    remarks: tuple[str, ...] = ()
    """What a person should know about the chain."""
    digest: bytes = field(default=b"", repr=False, eq=False)
    """Of the record that it was read from."""

    def covers(self, host: str) -> bool:
        """Return whether a client that wants this host accepts it."""
        parent = host.partition(".")[2]
        return host in self.names or (bool(parent) and f"*.{parent}" in self.names)

    def is_valid(self, now: float, *, margin: float = 0.0) -> bool:
        """Return whether it is valid now, and still will be in `margin` seconds."""
        return self.not_before <= now and now + margin < self.not_after

    @property
    def renew_at(self) -> float:
        """Return when to ask for the next one."""
        return self.not_before + KEPT_SHARE * (self.not_after - self.not_before)
