"""The settings, read once at the start.

`table` says which there are, `parsers` how each is written, `load` where they come from; `values` is what comes out.
"""

from .load import (
    OVERLAY_FILES,
    OVERLAY_FOLDER,
    SECRET_DOCUMENT,
    SECRETS_FOLDER,
    InvalidSetting,
    load_settings,
)
from .parsers import HOURLY, MOST_SETTLE_SECONDS, Address, Network, travels_in_the_clear
from .table import SETTINGS, Setting, settings_table
from .values import Row, Settings

__all__ = [
    "HOURLY",
    "MOST_SETTLE_SECONDS",
    "OVERLAY_FILES",
    "OVERLAY_FOLDER",
    "SECRETS_FOLDER",
    "SECRET_DOCUMENT",
    "SETTINGS",
    "Address",
    "InvalidSetting",
    "Network",
    "Row",
    "Setting",
    "Settings",
    "load_settings",
    "settings_table",
    "travels_in_the_clear",
]
