"""A reverse proxy in memory: what it was told last, and how often."""

from attrs import define, field

from coreflow.domain.routing.routes import RouteTable, reverse_configs


@define
class MemoryCoretraffic:
    """`CoretrafficPort` that is always there and takes everything. A table like the last one is not taken again."""

    tables: list[RouteTable] = field(factory=list)
    """Every table that it was sent, the newest last."""
    resent: int = 0

    def publish(self, table: RouteTable) -> None:
        """Take a table, unless it says the same as the last one."""
        if not self.tables or reverse_configs(self.tables[-1]) != reverse_configs(table):
            self.tables.append(table)

    def resend(self) -> None:
        """Take the last one again."""
        self.resent += 1
