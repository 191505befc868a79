"""Hook of MkDocs: the site has the repository's layout, so that every relative link works on GitHub and in the site."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = ("*.md", "docs/*.md", "data/*.md", "baselines/*/*.md", "tests/*/*.md")
# Pages made of docstrings, and the files of each.
REFERENCE = {
    "models": "models/*.py",
    "audio_visual": "utils/audio_visual.py",
    "method": "utils/method/*.py",
    "dataloaders": "dataloaders/*.py",
    "training": "utils/training/*.py",
    "evaluation": "utils/evaluation/*.py",
    "reporting": "utils/reporting/*.py",
    "runs": "utils/[!a]*.py",  # all others of utils/
    "baselines": "baselines/**/*.py",
    "video": "video/**/*.py",
    "lavish": "lavish/*.py",
    "simulation": "simulation/*.py",
}
BEFORE_LIST = re.compile(r"^(?![-|>#\s]|\d+\.)(.+\n)(?=- )", re.MULTILINE)
LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s]+)([^)\s]*)\)")
IMAGE = re.compile(r'\[!\[.*?\]\((.+?)\)|src(?:set)?="(.+?)"')  # a badge or an HTML image


def docstrings(pattern: str) -> str:
    """Return a page in Markdown with the docstrings of the files that match a pattern."""
    paths = sorted(path.relative_to(ROOT).with_suffix("") for path in ROOT.glob(pattern) if path.stat().st_size)
    modules = [".".join(path.parts).removesuffix(".__init__") for path in paths if path.name != "__main__"]
    return "\n\n".join(f"::: {module}" for module in modules)


def is_shown(path: Path) -> bool:
    """Return whether the site has a file: no folders, and of Python the docstrings in the reference alone."""
    return path.is_file() and path.suffix != ".py" and ROOT in path.parents


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replace the files of docs/ by the repository's Markdown files, the files that they link to, and the reference."""
    pages = {page for pattern in PAGES for page in ROOT.glob(pattern)}
    texts = {page: page.read_text() for page in pages}
    linked = {(page.parent / link[1]).resolve() for page, text in texts.items() for link in LINK.findall(text)}
    linked |= {page.parent / (badge or image) for page, text in texts.items() for badge, image in IMAGE.findall(text)}
    paths = sorted(filter(is_shown, {*pages, *linked, ROOT / "docs/site.css"}))
    site = [File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)) for path in paths]
    for name, pattern in REFERENCE.items():
        site.append(File.generated(config, f"reference/{name}.md", content=docstrings(pattern)))
    return Files([file for file in files if file.src_dir != config.docs_dir] + site)  # the theme's remain


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Return a page without its links to folders and Python files, and with a blank line before each list."""
    folder = (ROOT / page.file.src_uri).parent

    def kept(link: re.Match[str]) -> str:
        target = (folder / link[2]).resolve()
        return link[1] if target.exists() and not is_shown(target) else link[0]

    return BEFORE_LIST.sub(r"\1\n", LINK.sub(kept, markdown))
