"""What a page would load, and what it shows, without a browser."""

from html.parser import HTMLParser

_LOADS = {"src", "href", "srcset", "data", "poster", "action"}


class Page(HTMLParser):
    """Attributes:
    loads: (tag, address) of everything that a browser fetches by itself.
    anchors: addresses of links, which it does not.
    ids: of all elements.
    text: what stands outside scripts and styles.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loads: list[tuple[str, str]] = []
        self.anchors: list[str] = []
        self.ids: list[str] = []
        self._words: list[str] = []
        self._hidden = 0
        self.feed(html)
        self.text = " ".join(" ".join(self._words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in ("script", "style")
        for name, value in attrs:
            if name == "id" and value:
                self.ids.append(value)
            elif tag == "a" and name == "href" and value:
                self.anchors.append(value)
            elif name in _LOADS and value and not value.startswith("data:"):
                self.loads.append((tag, value))

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._words.append(data)
