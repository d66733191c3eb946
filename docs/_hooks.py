"""Pages of the repository's root as pages of the site: each has one home, and its links lead to the site's pages."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside `docs/`."""
    root = Path(config.config_file_path).parent
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=as_page((root / source).read_text(encoding="utf-8"))))
    return files


def as_page(text: str) -> str:
    """Return `text` with links that are right in `docs/`."""
    text = re.sub(r"\]\((?:\.\./)?docs/", "](", text)
    for source, page in PAGES.items():
        text = text.replace(f"]({source})", f"]({page})")
    return text
