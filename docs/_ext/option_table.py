"""Sphinx extension: the directive ``option-table`` is filled from the daemon's own table of options."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fileexport.options import OPTIONS, Option, flag_names

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx


def option_table() -> str:
    """The table of all options in Markdown: spelling, default, meaning."""
    rows = ["| option | default | meaning |", "|---|---|---|"]
    rows.extend(
        f"| {_spelling(option)} | {_cell(option.default)} | {_cell(option.meaning)} |" for option in OPTIONS
    )
    return "\n".join(rows) + "\n"


def _cell(text: str) -> str:
    """`text` inside a cell, where a bar would end it."""
    return text.replace("|", "\\|")


def _spelling(option: Option) -> str:
    names = [f"`{_cell(f'{name} {option.metavar}'.strip())}`" for name in flag_names(option)]
    return ", ".join(names) + " (repeatable)" * option.repeatable


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive with Sphinx."""
    # Imported here, so that the tests read `option_table` without Sphinx.
    from sphinx.util.docutils import SphinxDirective

    class OptionTable(SphinxDirective):
        """``option-table``: takes no argument and no content; its page is Markdown."""

        def run(self) -> list[nodes.Node]:
            return self.parse_text_to_nodes(option_table())

    app.add_directive("option-table", OptionTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
