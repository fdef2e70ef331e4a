"""Actions for which a plan asks Corestore."""

from attrs import frozen

from .bindings import BindingSpec


@frozen
class Provision:
    """Have Corestore make what a binding wants, or find it: the values are needed before its service can be rendered."""

    spec: BindingSpec
    reason: str


@frozen
class Deprovision:
    """Give back what an explicitly disabled binding had, with its data."""

    spec: BindingSpec
    reason: str
