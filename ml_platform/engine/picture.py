"""The graph as a picture: boxes in layers, coloured by what became of them. Plain SVG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape

from ml_platform.engine.graph import Graph, Node, resource_name

COLOURS = {
    "done": "#2e7d32",
    "cached": "#1565c0",
    "failed": "#c62828",
    "skipped": "#9e9e9e",
    "run": "#37474f",
    "maybe": "#f9a825",
    "blocked": "#c62828",
}
WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 190, 46, 26, 44, 16


def to_svg(graph: Graph, states: Mapping[str, str]) -> str:
    """An SVG document of a graph.

    Args:
        states: By node; each is written in its box and chooses its colour.
    """
    places = _places(graph)
    right = max((x for x, _ in places.values()), default=0) + WIDTH + MARGIN
    bottom = max((y for _, y in places.values()), default=0) + HEIGHT + MARGIN
    body = [_edge(places[parent], places[child]) for parent, child in _direct_edges(graph)]
    for node in graph.nodes:
        body += _box(node, places[node.name], states.get(node.name, ""))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{right}" height="{bottom}" '
        f'viewBox="0 0 {right} {bottom}" font-family="sans-serif">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(body)}</svg>'
    )


def _direct_edges(graph: Graph) -> Iterator[tuple[str, str]]:
    """Edges that no longer way says already: what a person follows with the eye."""
    above: dict[str, set[str]] = {}
    for node in graph.nodes:
        further = set().union(*(above[parent] for parent in node.parents))
        above[node.name] = further.union(node.parents)
        yield from ((parent, node.name) for parent in node.parents if parent not in further)


def _places(graph: Graph) -> dict[str, tuple[int, int]]:
    """Upper left corner of each box. A node stands one layer below its lowest parent, near its parents."""
    layers: dict[str, int] = {}
    rows: dict[int, list[Node]] = {}
    for node in graph.nodes:
        layers[node.name] = 1 + max((layers[parent] for parent in node.parents), default=-1)
        rows.setdefault(layers[node.name], []).append(node)
    widest = max(map(len, rows.values()), default=0)
    columns: dict[str, float] = {}
    for _, row in sorted(rows.items()):
        row.sort(key=lambda node: _middle(node, columns))
        for at, node in enumerate(row):
            columns[node.name] = at + (widest - len(row)) / 2
    return {
        name: (round(MARGIN + column * (WIDTH + GAP_X)), MARGIN + layers[name] * (HEIGHT + GAP_Y))
        for name, column in columns.items()
    }


def _middle(node: Node, columns: Mapping[str, float]) -> float:
    above = [columns[parent] for parent in node.parents]
    return sum(above) / len(above) if above else 0.0


def _edge(parent: tuple[int, int], child: tuple[int, int]) -> str:
    x1, y1 = parent[0] + WIDTH // 2, parent[1] + HEIGHT
    x2, y2 = child[0] + WIDTH // 2, child[1]
    middle = (y1 + y2) // 2
    return (
        f'<path d="M{x1},{y1} C{x1},{middle} {x2},{middle} {x2},{y2}" fill="none" stroke="#90a4ae"/>'
        f'<circle cx="{x2}" cy="{y2}" r="3" fill="#90a4ae"/>'
    )


def _box(node: Node, place: tuple[int, int], state: str) -> Iterator[str]:
    x, y = place
    colour = COLOURS.get(state, "#607d8b")
    held = ", ".join(resource_name(spec) for spec in node.resources.values())
    below = " · ".join(filter(None, (state, held)))
    yield f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="7" fill="{colour}"/>'
    for text, dy, size in ((node.name, 20, 13), (below, 36, 10)):
        yield (
            f'<text x="{x + WIDTH // 2}" y="{y + dy}" font-size="{size}" fill="white" '
            f'text-anchor="middle">{escape(text)}</text>'
        )
