import pytest

from faiss_distill.render.content import FACTS, Column, Section
from faiss_distill.render.table import TABLE_WIDTH, WIDTH, as_text


def test_names_stand_to_the_left_and_numbers_to_the_right():
    columns = [Column("name", left=True), Column("found", ".3f"), Column("codes", ".0f")]
    text = as_text([Section(columns=columns, rows=[("a", 0.5, 9.6), ("longer", 1.0, 12345.0)])])
    assert text.splitlines() == ["name    found  codes", "a       0.500     10", "longer  1.000  12345"]


def test_before_and_after_share_a_cell():
    text = as_text([Section(columns=[Column("found", ".2f")], rows=[((0.5, 0.75),), ((1.0,),)])])
    assert text.splitlines() == ["      found", "0.50 → 0.75", "       1.00"]


def test_facts_have_no_headings_and_end_where_they_end():
    text = as_text([Section(columns=FACTS, rows=[("d", 64), ("can be tuned", True), ("size", "0: "), ("long", False)])])
    assert text.splitlines() == ["d             64", "can be tuned  yes", "size          0: ", "long          no"]


def test_title_table_notes_and_items_are_lines_and_sections_paragraphs():
    everything = Section("title", [Column("n")], [(1,)], ["note", "another"], ["item"])
    assert as_text([everything, Section("alone")]) == "title\nn\n1\nnote\nanother\n- item\n\nalone"


def test_items_are_wrapped_and_notes_are_not():
    words = "word " * 30
    *items, note = as_text([Section(items=[words]), Section(notes=[words])]).replace("\n\n", "\n").splitlines()
    assert [line[:3] for line in items] == ["- w", "  w"]
    assert max(map(len, items)) <= WIDTH
    assert note == words


@pytest.mark.parametrize("columns", [(), FACTS])
def test_no_rows(columns):
    assert as_text([Section(columns=columns)]) == ""
    assert as_text([Section(columns=[Column("found"), Column("n")])]) == "found  n"


def test_a_wide_table_goes_on_below_beside_its_first_column():
    columns = [Column("nprobe"), *(Column(f"found {i}", ".3f") for i in range(9))]
    rows = [(n, *((i / 10, i / 9) for i in range(9))) for n in (1, 16)]
    lines = as_text([Section(columns=columns, rows=rows, notes=["note"])]).splitlines()
    assert max(map(len, lines)) <= TABLE_WIDTH
    assert lines[3] == ""
    assert lines[-1] == "note"
    first, second = ([line.split() for line in part] for part in (lines[:3], lines[4:7]))
    assert [row[0] for row in first] == [row[0] for row in second] == ["nprobe", "1", "16"]
    assert (first[0] + second[0][1:])[1:] == [word for i in range(9) for word in ("found", str(i))]
    assert len({len(line) for line in lines[:3]}) == len({len(line) for line in lines[4:7]}) == 1


def test_a_row_has_a_cell_for_each_column():
    with pytest.raises(ValueError, match="zip"):
        as_text([Section(columns=FACTS, rows=[("one",)])])
