"""Filters as people write them, and how their files are loaded."""

from __future__ import annotations

import hashlib
import re
import sys
import types
from pathlib import Path

from .alert import Alert
from .trouble import CONFIGURATION, Trouble

# What Kafka allows in the name of a topic; the rest of the topic's name is added to it.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,99}")


class AlertFilter:
    """Derive from it and write `filter`.

    class Filter001(AlertFilter):
        def filter(self, alert):
            return alert.snr > 10 and alert.mag < 18
    """

    name: str = ""
    """Last word of the topic that the filter sends to; the name of the class where none is given."""

    version: str = ""
    """Goes along as a header; where none is given, the first 12 digits of the SHA-256 of the file."""

    def filter(self, alert: Alert) -> bool | str | None:
        """Whether the alert passes; a text passes too, and goes along as the header `filter_label`."""
        raise NotImplementedError


def load(path: Path) -> list[AlertFilter]:
    """Every filter of a file, ready to run."""
    try:
        source = path.read_bytes()
    except OSError as error:
        raise Trouble(f"{path}: {error.strerror}; name the file of a filter", CONFIGURATION) from error
    module = types.ModuleType(f"nightjar_filter_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except SyntaxError as error:
        raise Trouble(f"{path}, line {error.lineno}: {error.msg}; correct it", CONFIGURATION) from error
    except Exception as error:
        where = f"{path}: {type(error).__name__}: {error}"
        raise Trouble(f"{where}; the file must run by itself (try: python3 {path})", CONFIGURATION) from error
    classes = [
        one
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, AlertFilter) and one.__module__ == module.__name__
    ]
    if not classes:
        raise Trouble(f"{path} has no filter; write `class Filter001(AlertFilter)` in it", CONFIGURATION)
    digest = hashlib.sha256(source).hexdigest()[:12]
    return [_made(one, path, digest) for one in classes]


def _made(kind: type[AlertFilter], path: Path, digest: str) -> AlertFilter:
    if kind.filter is AlertFilter.filter:
        raise Trouble(f"{path}: class {kind.__name__} has no method filter(self, alert); add it", CONFIGURATION)
    try:
        made = kind()
    except Exception as error:
        what = f"{path}: class {kind.__name__} cannot be made: {type(error).__name__}: {error}"
        raise Trouble(f"{what}; its __init__ takes nothing but self", CONFIGURATION) from error
    made.name = made.name or kind.__name__
    made.version = str(made.version or digest)
    if not NAME.fullmatch(made.name) or re.fullmatch(r"programid\d*", made.name):
        what = f"{path}: {made.name!r} cannot be the last word of a topic"
        raise Trouble(f"{what}; give the class a `name` of letters, digits, '.' and '-'", CONFIGURATION)
    return made


def load_all(paths: list[Path]) -> list[AlertFilter]:
    """The filters of several files; two of one name are refused."""
    filters: list[AlertFilter] = []
    for path in paths:
        for one in load(path):
            if any(one.name == other.name for other in filters):
                raise Trouble(f"{path}: there are two filters named {one.name}; give one another `name`", CONFIGURATION)
            filters.append(one)
    return filters
