"""Pages of the repository's root as pages of the site: each has one home, and its links lead to the site's pages."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
}

LOADED = re.compile(r"""<(?:script|link|img)\b[^>]*\b(?:src|href)=["'](?:https?:)?//[^"']*""")
"""An element for which a browser would ask a network."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside `docs/`."""
    root = Path(config.config_file_path).parent
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=as_page((root / source).read_text(encoding="utf-8"))))
    return files


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Refuse a page that cannot be read without a network.

    Raises:
        PluginError: it loads a script, a style sheet or an image from one.
    """
    if loaded := LOADED.search(output):
        raise PluginError(f"{page.file.src_uri} is not readable without a network: {loaded[0]}")
    return output


def as_page(text: str) -> str:
    """Return `text` with links that are right in `docs/`."""
    text = re.sub(r"\]\((?:\.\./)?docs/", "](", text)
    for source, page in PAGES.items():
        text = text.replace(f"]({source})", f"]({page})")
    return text
