"""The study of edge control as one page: what was found, in words and figures."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

_WORDS = {
    "regret": "Regret of the best setting that each way had seen, by its reward without noise, against the best of all "
    "settings.",
    "training": "Training of the policies: mean reward of a group, and how undecided the policy is.",
    "actions": "What the policies choose at each temperature.",
    "run": "One run: the fan stops, the board warms, the policy changes the settings.",
    "fan_off": "Tokens per second against the hottest batch; what is right of the dashed line has passed the limit.",
}
_NOTE = (
    "Everything on this page is simulated from two grid logs of an AGX Orin: nothing was measured. What is assumed, "
    "and how well the simulation fits, is in docs/edge-control.md."
)
_STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}svg{max-width:100%;height:auto}"
    "pre{overflow-x:auto}figcaption{color:#444}"
)


def write_report(out: Path, lines: Sequence[str], figures: Mapping[str, Path]) -> list[Path]:
    """Write `report.md`, and `report.html` with the figures inside it.

    Args:
        out: folder, which is there.
        lines: tables for people.
        figures: name -> its PNG, beside an SVG of the same name.

    Raises:
        OSError: they cannot be written.
    """
    title, tables = "Edge control on a simulated AGX Orin", "\n".join(lines)
    pictures = "".join(f"\n![{name}]({path.name})\n\n{_WORDS[name]}\n" for name, path in figures.items())
    markdown = out / "report.md"
    markdown.write_text(f"# {title}\n\n{_NOTE}\n\n```text\n{tables}\n```\n{pictures}", encoding="utf-8")
    parts = [f"<h1>{title}</h1><p><b>{html.escape(_NOTE)}</b></p><pre>{html.escape(tables)}</pre>"]
    for name, path in figures.items():
        drawn = path.with_suffix(".svg").read_text(encoding="utf-8")
        parts.append(
            f"<figure>{drawn[drawn.index('<svg') :]}<figcaption>{html.escape(_WORDS[name])}</figcaption></figure>"
        )
    page = out / "report.html"
    page.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"<body>{''.join(parts)}</body></html>\n",
        encoding="utf-8",
    )
    return [markdown, page]
