"""Sphinx: `make docs` builds the pages with every warning an error."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).with_name("_ext")))

project = "fileexport"
author = "fileexport contributors"
project_copyright = "2026, fileexport contributors"
version = release = installed_version("fileexport")

extensions = ["myst_parser", "option_table", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
# Docstrings are plain text: what they put between backticks is code.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100
html_theme = "furo"
html_title = f"fileexport {release}"
