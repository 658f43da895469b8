"""docs/api.md: the reference has every public name, and every name that it has is there."""

from __future__ import annotations

import re
from importlib import import_module
from operator import attrgetter

from twisted.trial.unittest import SynchronousTestCase

import fileexport
from fileexport import embed, testing
from tests.test_docs import page

#: What a page says twice under two names.
ALIASES = frozenset(("fileexport.embed.staticResource",))


def documented() -> dict[str, str]:
    """The names of the page, each with its directive."""
    found = re.findall(r"^\.\. auto(\w+):: ([\w.]+)(?:\(\))?$", page("docs/api.md"), re.MULTILINE)
    return {name: kind for kind, name in found}


def meant(name: str) -> object:
    """What a full name leads to."""
    parts = name.split(".")
    for size in range(len(parts) - 1, 0, -1):
        try:
            module = import_module(".".join(parts[:size]))
        except ModuleNotFoundError:
            continue
        return attrgetter(".".join(parts[size:]))(module)
    raise AssertionError(name)


class ReferenceTests(SynchronousTestCase):
    """The page, without building it."""

    def test_all_names(self) -> None:
        """Every public name of the package, of `embed` and of `testing` is there."""
        public = {f"fileexport.{name}" for name in (*fileexport.__all__, "open")}
        for module in (embed, testing):
            public |= {f"{module.__name__}.{name}" for name in module.__all__}
        self.assertEqual(public - ALIASES - documented().keys(), set())

    def test_directives(self) -> None:
        """Each name is what its directive says, and has a docstring of its own."""
        for name, kind in documented().items():
            found = meant(name)
            wanted = "function"
            if isinstance(found, type):
                wanted = "exception" if issubclass(found, Exception) else "class"
            self.assertEqual(kind, wanted, name)
            self.assertTrue(found.__doc__, name)
