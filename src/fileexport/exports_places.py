"""Who sees what: from a `Principal` and a path to a view of the jail.

What a caller may not see does not exist for it: the exported directories are cut to the token's own part, and
above them there are only directories that hold them.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from fileexport.disk.jail import Entry, View
from fileexport.errors import DestinationNotFound, NotGranted
from fileexport.leases import Leases
from fileexport.paths import RelPath
from fileexport.tokens import Principal, Right
from fileexport.uploads import Files, Target


def view_of(who: Principal, base: RelPath) -> View:
    """What `who` sees of one of their `bases`, or of a directory in it."""
    return View(base, hidden=who.sees_hidden, bound=who.bound)


class Places:
    """The exported directories of one tree, all of it or just `directories`, and who writes into them now."""

    def __init__(self, tree: Files, directories: tuple[RelPath, ...] = ()) -> None:
        self._tree = tree
        self._directories = tuple(dict.fromkeys(directories)) or (RelPath(),)
        self._leases = Leases()

    @property
    def is_portable(self) -> bool:
        """Whether only portable names may be created."""
        return self._tree.is_portable

    def bases(self, who: Principal) -> tuple[RelPath, ...]:
        """The highest directories that `who` may see: the exported ones, cut to the token's own part."""
        if not who.under:
            return self._directories
        found = []
        for directory in self._directories:
            if directory.beneath(who.under) is not None:
                found.append(directory)
            elif who.under.beneath(directory) is not None:
                found.append(who.under)
        return tuple(dict.fromkeys(found))

    # -- where it goes

    def _target(self, who: Principal, path: RelPath) -> Target:
        """Where a new name goes. Raises `DestinationNotFound` outside of what `who` may see."""
        return self._targets(who)(path)

    def _targets(self, who: Principal) -> Callable[[RelPath], Target]:
        """What says of each path where it goes, as `_target` does: for who asks of many."""
        grounds = [
            (view_of(who, base), next(one for one in self._directories if one.holds(base)))
            for base in self.bases(who)
        ]

        def find(path: RelPath) -> Target:
            for view, exported in grounds:
                if (rest := path.beneath(view.base)) is not None:
                    return Target(view, rest, exported)
            raise DestinationNotFound

        return find

    def _parent(self, target: Target) -> os.stat_result:
        """The directory that a new name goes to; a name that cannot be new is refused before."""
        self._tree.check_new(target.view, target.path)
        try:
            parent = self._tree.stat(target.view, target.path.parent)
        except FileNotFoundError:
            raise DestinationNotFound from None
        if not stat.S_ISDIR(parent.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return parent

    def _is_there(self, who: Principal, path: RelPath) -> bool:
        """Whether it is a directory whatever is on the disk: an exported one, or one above."""
        return self._is_virtual(who, path) or path in self.bases(who)

    def known(self, who: Principal, path: RelPath) -> os.stat_result | None:
        """What a conditional change of a path is decided by; None where nothing is there.

        It is what `open` shows: what a link leads to; of a link that leads nowhere, its own. `who` must be
        able to change something, not to read. Raises `IsADirectoryError` for an exported directory and for
        what is above one, and `OSError`.
        """
        if not (who.may(Right.WRITE) or who.may(Right.DELETE)):
            raise NotGranted
        if self._is_there(who, path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        place = self._find(who, path)
        if place is None:
            return None
        try:
            return self._tree.stat(*place)
        except OSError:
            return self._known_itself(*place)

    def _known_itself(self, view: View, path: RelPath) -> os.stat_result | None:
        try:
            return self._tree.lstat(view, path)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _refuse_exported(self, who: Principal, path: RelPath) -> None:
        # Of others nobody learns that they are exported.
        if not path or any(map(path.holds, self.bases(who))):
            raise PermissionError(errno.EACCES, "it is exported, or holds what is")

    # -- who sees what

    @staticmethod
    def _require(who: Principal, right: Right) -> None:
        if not who.may(right):
            raise NotGranted

    def _bases_below(self, who: Principal, path: RelPath) -> list[tuple[RelPath, RelPath]]:
        """The bases strictly below `path`, each with its path from there."""
        found = ((base, base.beneath(path)) for base in self.bases(who))
        return [(base, rest) for base, rest in found if rest]

    def _is_virtual(self, who: Principal, path: RelPath) -> bool:
        if any(base.holds(path) for base in self.bases(who)):
            return False
        return not path or bool(self._bases_below(who, path))

    def _place(self, who: Principal, path: RelPath) -> tuple[View, RelPath]:
        """The view that holds `path`, and the path as seen from its base."""
        if (place := self._find(who, path)) is not None:
            return place
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    def _find(self, who: Principal, path: RelPath) -> tuple[View, RelPath] | None:
        for base in self.bases(who):
            if (rest := path.beneath(base)) is not None:
                return view_of(who, base), rest
        return None

    def _base_entry(self, who: Principal, base: RelPath, rest: RelPath) -> Entry:
        name = "/".join(rest)
        try:
            status = self._tree.stat(view_of(who, base), RelPath())
        except OSError:
            return Entry(name, "other", 0, 0, 0)
        return Entry.of(name, status)
