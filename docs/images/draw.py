"""Draw README's figure of the method, for light and for dark pages, and its badges: `python docs/images/draw.py`."""

from html import escape
from pathlib import Path

THEMES = {
    "light": {"text": "#1f2328", "soft": "#59636e", "line": "#818b98", "data": "#f6f8fa", "panel": "#ffffff"},
    "dark": {"text": "#e6edf3", "soft": "#9198a1", "line": "#6e7681", "data": "#161b22", "panel": "#0d1117"},
}
# Okabe and Ito's blue, orange and green, which stay apart for the colour-blind and in print.
NETWORK, LABELS, LOSS = "#0072B2", "#E69F00", "#009E73"
WIDTH, HEIGHT = 1000, 400
BADGES = {"licence": "MIT", "python": "3.11+", "tests": "one command"}


def box(theme: dict[str, str], x: float, y: float, width: float, height: float, lines: str, colour: str = "") -> str:
    """Draw a rounded box with centred lines, the first in bold; data are grey, other parts have a coloured frame."""
    fill, stroke = (theme["panel"], colour) if colour else (theme["data"], theme["line"])
    rows = lines.split("\n")
    first = y + height / 2 - 8.5 * (len(rows) - 1) + 5
    texts = (
        f'<text x="{x + width / 2}" y="{first + 17 * n}" fill="{theme["text" if n == 0 else "soft"]}" '
        f'font-weight="{600 if n == 0 else 400}" font-size="{14 if n == 0 else 12.5}">{escape(row)}</text>'
        for n, row in enumerate(rows)
    )
    outline = f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="{fill}" stroke="{stroke}"'
    return f'{outline} stroke-width="{2 if colour else 1}"/>{"".join(texts)}'


def arrow(theme: dict[str, str], *points: tuple[float, float]) -> str:
    """Draw a line through points that ends in an arrowhead."""
    path = " ".join(f"{x},{y}" for x, y in points)
    return (
        f'<polyline points="{path}" fill="none" stroke="{theme["line"]}" stroke-width="1.6" marker-end="url(#head)"/>'
    )


def heading(theme: dict[str, str], y: float, text: str) -> str:
    """Write the name of a row."""
    return f'<text x="20" y="{y}" text-anchor="start" font-size="13" fill="{theme["soft"]}">{escape(text)}</text>'


def method(theme: dict[str, str]) -> str:
    """Return the figure as SVG."""
    parts = [
        heading(theme, 26, "Stages 1 and 2: pre-train on UnAV-100, then write pseudo-labels for LLP or AVE"),
        box(theme, 20, 46, 150, 108, "Segments\nCLIP features\nCLAP features\nof T seconds"),
        box(
            theme,
            215,
            46,
            180,
            108,
            "Temporal transformer\npseudo-label generation\nmodule, one for each\nmodality",
            NETWORK,
        ),
        box(theme, 440, 46, 170, 108, "Logits ẑ\nproduct with the\ntext features of events"),
        box(theme, 655, 46, 145, 108, "Pseudo-labels\nẑ > θ, with class-wise\nthresholds θ from val", LABELS),
        box(theme, 845, 46, 135, 108, "Uncertainty\np̂ = σ((ẑ − θ) / τ)\nfor events of the\nvideo label y", LABELS),
        *(arrow(theme, (x, 100), (x + 40, 100)) for x in (172, 397, 612, 802)),
        heading(theme, 206, "Stages 3 and 4: train the inference module, then parse videos"),
        box(theme, 20, 226, 150, 108, "Segments\nVGGish · ResNet-152\nR(2+1)D-18"),
        box(
            theme,
            215,
            226,
            180,
            108,
            "HAN, inference module\nself- and cross-modal\nattention, classifier,\nMMIL pooling",
            NETWORK,
        ),
        box(theme, 440, 226, 170, 108, "Probabilities\np of each segment,\naudio and visual;\nP of the video"),
        box(
            theme,
            655,
            226,
            325,
            108,
            "Losses\nvideo classification: P against y\nuncertainty-weighted classification: p against p̂,\n"
            "with class-balanced re-weighting (W)\nuncertainty-weighted feature mixup (α)",
            LOSS,
        ),
        *(arrow(theme, (x, 280), (x + 40, 280)) for x in (172, 397, 612)),
        arrow(theme, (912, 156), (912, 224)),
        box(theme, 440, 356, 170, 32, "Audible, visible, both"),
        arrow(theme, (525, 336), (525, 354)),
    ]
    head = (
        f'<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0,0 L8,4 L0,8 z" fill="{theme["line"]}"/></marker></defs>'
    )
    font = "font-family='-apple-system, Segoe UI, Helvetica, Arial, sans-serif' text-anchor='middle'"
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    title = "<title>UWAV in four stages</title>"
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font} role="img">{title}{head}{"".join(parts)}</svg>\n'


def badge(label: str, value: str) -> str:
    """Return a badge as SVG: a grey label, and its value in blue."""
    left, right = (12 + 6.5 * len(text) for text in (label, value))  # widths
    panels = f'<rect width="{left}" height="20" fill="#555555"/>'
    panels += f'<rect x="{left}" width="{right}" height="20" fill="{NETWORK}"/>'
    texts = "".join(
        f'<text x="{x}" y="14" fill="#ffffff">{text}</text>'
        for x, text in ((left / 2, label), (left + right / 2, value))
    )
    font = "font-family='Verdana, DejaVu Sans, sans-serif' font-size='11' text-anchor='middle'"
    size = f'width="{left + right}" height="20" role="img" aria-label="{label}: {value}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>{panels}{texts}</svg>\n'


if __name__ == "__main__":
    for label, value in BADGES.items():
        Path(__file__).with_name(f"badge_{label}.svg").write_text(badge(label, value), encoding="utf-8")
    for name, theme in THEMES.items():
        Path(__file__).with_name(f"method_{name}.svg").write_text(method(theme), encoding="utf-8")
