"""`coreflow schema`."""

import sys
from typing import Annotated

from cyclopts import Parameter

from coreflow.app.streams import json_text
from coreflow.domain.records.schema import json_schema


def schema(
    *,
    part: Annotated[
        bool,
        Parameter(
            negative=(), show_default=False, help="For one file of a folder, which need not have it all."
        ),
    ] = False,
) -> int:
    """Print the JSON Schema of a cluster file (draft 2020-12), for editors and checks.

    An editor that knows YAML language servers takes it by the first line of the file:
    # yaml-language-server: $schema=cluster.schema.json
    """
    sys.stdout.write(json_text(json_schema(part=part), indent=2) + "\n")
    return 0
