"""Filters of alerts in Kafka: write a class derived from `AlertFilter`, run it with `nightjar-filter`."""

from .alert import Alert, Epoch
from .filters import AlertFilter

__all__ = ["Alert", "AlertFilter", "Epoch"]
__version__ = "0.1.0"
