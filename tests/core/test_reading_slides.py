"""Presentations that python-pptx wrote: every text of every slide, with its number and the speaker's notes."""

from __future__ import annotations

import io
from pathlib import Path

import pptx
from office_world import read
from PIL import Image
from pptx.util import Inches

from windlass.core.documents import place
from windlass.core.readers import canonical


def presentation(path: Path) -> Path:
    deck = pptx.Presentation()
    first = deck.slides.add_slide(deck.slide_layouts[1])
    first.shapes.title.text = "The plan"
    first.placeholders[1].text = "Lift\nHold"
    first.notes_slide.notes_text_frame.text = "Speak slowly."
    deck.slides.add_slide(deck.slide_layouts[6])  # empty
    third = deck.slides.add_slide(deck.slide_layouts[6])
    box = third.shapes.add_textbox(Inches(1), Inches(1), Inches(3), Inches(1))
    box.text_frame.text = "Loose text & more"
    group = third.shapes.add_group_shape()
    group.shapes.add_textbox(Inches(1), Inches(2), Inches(3), Inches(1)).text_frame.text = "In a group"
    table = third.shapes.add_table(2, 2, Inches(1), Inches(3), Inches(3), Inches(1)).table
    for row, values in enumerate((("Name", "Price"), ("Rope", "3"))):
        for column, value in enumerate(values):
            table.cell(row, column).text = value
    deck.save(str(path))
    return path


def test_slides_are_sections_with_their_notes(tmp_path: Path) -> None:
    (document,), report = read(presentation(tmp_path / "deck.pptx"))
    assert document.text == (
        "The plan\n\nLift\nHold\n\nNotes:\nSpeak slowly.\n\n"
        "Slide 3\n\nLoose text & more\n\nIn a group\n\nName | Price\nRope | 3"
    )
    assert document.title == "The plan" and [one.heading for one in document.sections] == ["The plan", "Slide 3"]
    assert canonical(document.text) == document.text
    assert [str(note).partition(" (")[0] for note in report.skipped] == ["deck.pptx#slide=2: slide without text"]
    assert report.parts == {"slides": 3}


def test_a_place_tells_its_slide(tmp_path: Path) -> None:
    (document,), _ = read(presentation(tmp_path / "deck.pptx"))
    for words, where in (("Lift", "slide 1"), ("slowly", "slide 1"), ("Slide 3", "slide 3"), ("Rope", "slide 3")):
        assert place(document.metadata, document.text.index(words)) == where


def test_every_text_that_python_pptx_finds_is_there(tmp_path: Path) -> None:
    path = presentation(tmp_path / "deck.pptx")
    (document,), _ = read(path)
    for slide in pptx.Presentation(str(path)).slides:
        for shape in slide.shapes:
            if shape.has_text_frame:
                assert all(one.text in document.text for one in shape.text_frame.paragraphs)


def test_pictures_and_charts_are_named(tmp_path: Path) -> None:
    image = io.BytesIO()
    Image.new("RGB", (4, 4)).save(image, "png")
    deck = pptx.Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[5])
    slide.shapes.title.text = "Seen"
    slide.shapes.add_picture(image, Inches(1), Inches(1))
    deck.save(str(tmp_path / "deck.pptx"))
    _, report = read(tmp_path / "deck.pptx")
    assert [str(note) for note in report.mended] == ["deck.pptx: pictures and charts left out (1 pictures)"]


def test_slides_come_in_the_order_in_which_they_are_shown(tmp_path: Path) -> None:
    deck = pptx.Presentation()
    for name in ("one", "two", "three"):
        deck.slides.add_slide(deck.slide_layouts[5]).shapes.title.text = name
    ids = deck.slides._sldIdLst
    ids.insert(0, ids[2])  # the last one is shown first; its part keeps its name
    deck.save(str(tmp_path / "deck.pptx"))
    (document,), _ = read(tmp_path / "deck.pptx")
    assert document.text == "three\n\none\n\ntwo"
