"""Invitations on paper: A4 sheets of ten cards, each with a QR code for the kiosk's camera and the code to type."""

from __future__ import annotations

import io
from collections.abc import Sequence

import segno
from reportlab.lib.pagesizes import A4
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas

COLUMNS, ROWS = 2, 5
MARGIN = 10 * mm
QR_SIDE = 40 * mm  # readable by a kiosk's camera at arm's length
GROUPS_A_LINE = 4


def make_sheet(title: str, codes: Sequence[tuple[str, str]]) -> bytes:
    """PDF; `codes` are `(code, link)`. Takes some milliseconds a code."""
    made = io.BytesIO()
    width, height = A4[0] - 2 * MARGIN, A4[1] - 2 * MARGIN
    canvas = Canvas(made, pagesize=A4)
    canvas.setTitle(f"Invitations: {title}")
    for number, (code, link) in enumerate(codes):
        place = number % (COLUMNS * ROWS)
        if number and place == 0:
            canvas.showPage()
        left = MARGIN + place % COLUMNS * width / COLUMNS
        bottom = MARGIN + (ROWS - 1 - place // COLUMNS) * height / ROWS
        _card(canvas, left, bottom, width / COLUMNS, height / ROWS, title, code, link)
    canvas.save()
    return made.getvalue()


def _card(
    canvas: Canvas, left: float, bottom: float, width: float, height: float, title: str, code: str, link: str
) -> None:
    canvas.setDash(1, 3)
    canvas.rect(left, bottom, width, height)
    canvas.setDash()
    canvas.setFont("Helvetica-Bold", 11)
    canvas.drawString(left + 4 * mm, bottom + height - 7 * mm, _latin(title)[:44])
    _qr(canvas, left + 4 * mm, bottom + 3 * mm, link)
    beside = left + QR_SIDE + 7 * mm
    groups = code.split("-")
    canvas.setFont("Courier-Bold", 9)
    for line, start in enumerate(range(0, len(groups), GROUPS_A_LINE)):
        # Two groups a line beside the picture: the card is narrow.
        first, second = groups[start : start + 2], groups[start + 2 : start + GROUPS_A_LINE]
        canvas.drawString(beside, bottom + height - (16 + 10 * line) * mm, "-".join(first) + "-")
        ending = "-" if start + GROUPS_A_LINE < len(groups) else ""
        canvas.drawString(beside, bottom + height - (21 + 10 * line) * mm, "-".join(second) + ending)
    canvas.setFont("Helvetica", 8)
    for line, text in enumerate(
        ("New: provision with this code.", "Else: teleconsult join --qr", "Once, within 14 days.")
    ):
        canvas.drawString(beside, bottom + (14 - 4 * line) * mm, text)


def _qr(canvas: Canvas, left: float, bottom: float, link: str) -> None:
    rows = list(segno.make(link, error="m").matrix_iter(border=2))
    side = QR_SIDE / len(rows)
    for row, values in enumerate(rows):
        for column, dark in enumerate(values):
            if dark:  # a hair wider than it is, or a viewer shows seams
                canvas.rect(left + column * side, bottom + (len(rows) - 1 - row) * side, side * 1.02, side * 1.02, 0, 1)


def _latin(text: str) -> str:
    """The fonts that every PDF reader has know no other letters."""
    return text.encode("cp1252", "replace").decode("cp1252")
