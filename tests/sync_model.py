"""Trees in memory: made at random, seen as manifests, and changed by the actions of a plan, one by one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from blake3 import blake3
from hypothesis import strategies as st

from fileexport.errors import DeletionRefused
from fileexport.sync.chunks import LEAST
from fileexport.sync.manifest import Entry, Manifest
from fileexport.sync.plan import Action, Hashes, Plan, plan, questions
from fileexport.sync.rules import Rules

NAMES = ["a", "b", "c.o", "d.o"]
SIZES = [0, 5, 6, LEAST, LEAST + 1]


@dataclass(frozen=True)
class Node:
    """An entry with what its file holds: two of the same size and content are equal."""

    entry: Entry
    content: int = 0

    @property
    def is_directory(self) -> bool:
        return self.entry.kind == "directory"

    @property
    def digest(self) -> bytes:
        return blake3(b"%d %d" % (self.entry.size, self.content)).digest()


#: Nodes by path, the top at the empty one.
Nodes = dict[str, Node]


def manifest_of(nodes: Nodes) -> Manifest:
    """What a scan of the tree would say."""
    manifest = Manifest(nodes[""].entry if nodes else None)
    for path, node in nodes.items():
        if node.is_directory:
            manifest.folders.setdefault(path, {})
        if path:
            directory, _, name = path.rpartition("/")
            manifest.folders.setdefault(directory, {})[name] = node.entry
    return manifest


def planned(source: Nodes, destination: Nodes, rules: Rules) -> Plan:
    """The plan, with all questions answered and no others. Raises `DeletionRefused` as it says."""
    mine, theirs = manifest_of(source), manifest_of(destination)
    asked = questions(mine, theirs, rules)
    answers = Hashes(
        {path: source[path].digest for path in asked.source},
        {path: destination[path].digest for path in asked.destination},
    )
    made = plan(mine, theirs, rules, answers)
    if made.refusal is not None:
        raise DeletionRefused(made.refusal)
    return made


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


@dataclass
class Destination:
    """A tree that takes actions, and fails where a file system would."""

    nodes: Nodes
    source: Nodes
    rules: Rules
    clock: int = 10**6
    lost: list[str] = field(default_factory=list)
    #: Where what was put aside has been.
    origins: dict[str, str] = field(default_factory=dict)

    def carry_out(self, action: Action) -> None:
        """Take one action. Raises `AssertionError` where it cannot be done."""
        for depth in range(1, action.path.count("/") + 2):
            above = "/".join(action.path.split("/")[:depth])
            node = self.nodes.get(above)
            is_directory = above != action.path or (node is not None and node.is_directory)
            assert not above or node is None or not self.rules.leaves_out(above, is_directory), action
        getattr(self, f"_{action.kind}")(action)

    def _touch(self, path: str) -> None:
        """What changes a directory needs it to be there, and to be open; its time goes on."""
        if not path:
            return
        above = self.nodes[_parent(path)]
        assert above.is_directory and above.entry.mode & 0o700 == 0o700, path
        self.clock += 1
        self.nodes[_parent(path)] = replace(above, entry=above.entry._replace(mtime_ns=self.clock))

    def _place(self, action: Action, node: Node, *may_replace: str) -> None:
        """Put something at the action's path; what it replaces must be of a kind that can be replaced."""
        old = self.nodes.get(action.path)
        assert old is None or old.entry.kind in may_replace, action
        self._touch(action.path)
        self.nodes[action.path] = node

    def _take(self, path: str) -> None:
        node = self.nodes[path]
        assert not node.is_directory or not any(_parent(other) == path for other in self.nodes if other), path
        self._touch(path)
        del self.nodes[path]

    def _aside(self, action: Action) -> None:
        (origin,) = action.sources
        assert action.path not in self.nodes and action.path not in self.source
        self._touch(action.path)
        for path in [path for path in self.nodes if f"{path}/".startswith(f"{origin}/")]:
            self.origins[action.path + path[len(origin) :]] = path
            self.nodes[action.path + path[len(origin) :]] = self.nodes.pop(path)

    def _remove(self, action: Action) -> None:
        assert action.path in self.origins or (self.rules.delete and action.path not in self.source)
        self._take(action.path)
        self.lost.append(self.origins.get(action.path, action.path))

    def _make_directory(self, action: Action) -> None:
        assert action.entry is not None
        self.clock += 1
        entry = action.entry._replace(mode=action.entry.mode | 0o700, mtime_ns=self.clock)
        self._place(action, Node(entry))

    def _send(self, action: Action) -> None:
        assert not action.sources
        self._bring(action)

    def _update(self, action: Action) -> None:
        assert 1 <= len(set(action.sources)) == len(action.sources) <= 4
        assert all(self.nodes[path].entry.size >= LEAST for path in action.sources)
        self._bring(action)

    def _bring(self, action: Action) -> None:
        node = self.source[action.path]
        assert action.entry == node.entry and action.size == node.entry.size
        self._place(action, node, "file")

    def _copy(self, action: Action) -> None:
        (origin,) = action.sources
        assert action.entry is not None and self.nodes[origin].entry.size == action.size
        self._place(action, replace(self.nodes[origin], entry=action.entry), "file")

    def _move(self, action: Action) -> None:
        (origin,) = action.sources
        assert origin not in self.source and self.nodes[origin].entry.kind == "file"
        self._place(action, self.nodes[origin], "file")
        self._take(origin)

    def _link(self, action: Action) -> None:
        assert action.entry is not None and action.entry.kind == "link"
        self._place(action, Node(action.entry), "link")

    def _set(self, action: Action) -> None:
        node = self.nodes[action.path]
        assert action.old is None or action.old == node.entry, action
        assert action.entry is not None and node.entry.kind == action.entry.kind != "link"
        entry = node.entry._replace(mtime_ns=action.entry.mtime_ns, mode=action.entry.mode)
        self.nodes[action.path] = replace(node, entry=entry)


_times = st.integers(1, 2)
_modes = st.sampled_from([0o644, 0o600])
_files = st.builds(
    lambda size, mtime, mode, content: Node(Entry("file", size, mtime, mode), content if size else 0),
    st.sampled_from(SIZES),
    _times,
    _modes,
    st.integers(0, 1),
)
_targets = st.sampled_from(["a", "../b", "../../..", "/a"])
_links = st.builds(lambda mtime, target: Node(Entry("link", 0, mtime, 0, target)), _times, _targets)
_others = st.builds(lambda mtime: Node(Entry("other", 0, mtime, 0o600)), _times)
_leaves = st.integers(0, 15).flatmap(lambda number: {14: _links, 15: _others}.get(number, _files))
_directories = st.builds(
    lambda mtime, mode: Node(Entry("directory", 0, mtime, mode)),
    _times,
    st.sampled_from([0o755, 0o755, 0o755, 0o500]),
)
_paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map("/".join)


@st.composite
def trees(draw: st.DrawFn, least: int = 0) -> Nodes:
    """A tree of at most four levels, of few names and contents, so that two of them have much in common."""
    nodes = {"": draw(_directories)}
    for path in draw(st.lists(_paths, min_size=least, max_size=14, unique=True)):
        names = path.split("/")
        above = ["/".join(names[:depth]) for depth in range(1, len(names))]
        if path not in nodes and all(other not in nodes or nodes[other].is_directory for other in above):
            for other in above:
                if other not in nodes:
                    nodes[other] = draw(_directories)
            nodes[path] = draw(st.one_of(_leaves, _leaves, _directories))
    return nodes


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Nodes, Nodes]:
    """A source and a destination: two trees, or one that was changed here and there."""
    source = draw(st.one_of(trees(6), trees(6), trees()))
    if draw(st.booleans()):
        return source, draw(st.one_of(trees(6), trees(6), trees(), st.just({})))
    destination = dict(source)
    directories = [path for path, node in source.items() if node.is_directory]
    for path in [path for path, node in source.items() if node.entry.kind == "file"]:
        what = draw(st.sampled_from(["as it is", "gone", "moved", "moved", "changed"]))
        if what in ("gone", "moved"):
            del destination[path]
        if what == "moved":
            name = draw(st.sampled_from([path.rpartition("/")[2], "n"]))
            destination.setdefault(f"{draw(st.sampled_from(directories))}/{name}".lstrip("/"), source[path])
        if what == "changed":
            destination[path] = draw(_files)
    return source, destination
