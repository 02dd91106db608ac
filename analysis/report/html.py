"""A report as one HTML file that needs nothing else."""

import base64
import io
import re
from typing import TYPE_CHECKING

from analysis.report.document import Document, Plot

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup
    from matplotlib.figure import Figure

WORDS = {"wrong": "Wrong:", "doubt": "Doubt:", "note": "Note:"}


def to_html(document: Document) -> str:
    """The page: figures as SVG inside it, plotly's script once where it is needed, and a policy that forbids loads.

    Args:
        document: what to write.
    """
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    plots = [block for section in document.sections for block in section.blocks if isinstance(block, Plot)]
    environment = templates()
    source = environment.loader.get_source(environment, "style.css")[0] if environment.loader else ""
    return environment.get_template("report.html.j2").render(
        document=document,
        words=WORDS,
        style=Markup(source),
        plotly_js=Markup(get_plotlyjs()) if plots else "",
        images={picture.name: svg_uri(picture.figure) for picture in document.pictures()},
        plots={plot.name: _plot(plot) for plot in plots},
    )


def templates() -> "Environment":
    """The templates of this package; everything that is filled into HTML is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("analysis.report"),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["prose"] = prose
    return environment


def prose(text: str) -> "Markup":
    """Text as HTML, escaped; what stands between backticks becomes code, as in Markdown."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def svg_uri(figure: "Figure") -> str:
    """A figure as an image inside the page. As an image its ids are its own: inline, those of two would collide."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "report"}):
        figure.savefig(buffer, format="svg", bbox_inches="tight", facecolor="white", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _plot(plot: Plot) -> "Markup":
    from markupsafe import Markup
    from plotly.io import to_html as plotly_html

    return Markup(
        plotly_html(
            plot.figure,
            full_html=False,
            include_plotlyjs=False,
            include_mathjax=False,
            div_id=f"interactive-{plot.name}",
            config={"displaylogo": False, "responsive": True},
        )
    )
