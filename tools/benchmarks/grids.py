"""A table of figures: shown in a terminal, or written as Markdown."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True)
class Grid:
    """A table: its title, the head of each column, and rows of text; rich's markup is allowed in the text."""

    title: str
    columns: list[str]
    rows: list[list[str]]

    def show(self) -> None:
        """Print it for people."""
        table = Table(title=self.title)
        for index, column in enumerate(self.columns):
            table.add_column(column, justify="right" if index and len(self.columns) > 2 else "left")
        for row in self.rows:
            table.add_row(*row)
        Console().print(table)

    def markdown(self) -> str:
        """Return it as Markdown."""
        figures = "---:" if len(self.columns) > 2 else "---"
        lines = [self.columns, ["---", *[figures] * (len(self.columns) - 1)], *self.rows]
        body = "\n".join("| " + " | ".join(_plain(cell) for cell in line) + " |" for line in lines)
        return f"**{_plain(self.title)}**\n\n{body}\n"


def _plain(text: str) -> str:
    return Text.from_markup(text).plain.replace("|", "\\|").rstrip()


def number(value: float) -> str:
    """Return a figure with about three digits that matter."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
