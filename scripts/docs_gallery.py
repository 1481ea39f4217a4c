"""The gallery: every picture that the build has made, with a link to its page."""

import re
from pathlib import Path

from PIL import Image

WIDTH = 480  # pixels of every thumbnail
SECTIONS = {"notes": "The notes", "choose": "Choose", "howto": "How to", "lab": "The lab"}
INTRODUCTION = (
    """Every picture of this site that its build has made. Each leads to the page that says how."""
)


def page(pages: Path, computed: list[str]) -> str:
    """The Markdown of the gallery, whose thumbnails are written into pages/gallery/."""
    lines = ["# Gallery", "", INTRODUCTION, ""]
    for folder, title in {**SECTIONS, ".": "Elsewhere"}.items():
        names = [name for name in computed if Path(name).parent.as_posix() == folder]
        entries = [entry for name in names for entry in thumbnails(pages, name)]
        if entries:
            lines += [
                f"## {title}",
                "",
                '<div class="gallery" markdown>',
                "",
                *entries,
                "</div>",
                "",
            ]
    return "\n".join(lines)


def thumbnails(pages: Path, name: str) -> list[str]:
    """The pictures of a page, in its order, each as a link with a caption."""
    entries = []
    text = (pages / f"{name}.md").read_text()
    for number, (caption, file) in enumerate(re.findall(r"!\[([^\]]*)\]\((\S+\.png)\)", text)):
        thumbnail = pages / "gallery" / f"{name.replace('/', '_')}_{number}.png"
        thumbnail.parent.mkdir(exist_ok=True)
        shrink((pages / name).parent / file, thumbnail)
        entries += [f"[![{caption}](gallery/{thumbnail.name}) {caption}]({name}.md)", ""]
    return entries


def shrink(picture: Path, thumbnail: Path) -> None:
    with Image.open(picture) as image:
        height = round(image.height * WIDTH / image.width)
        image.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS).save(thumbnail)
