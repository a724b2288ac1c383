from unc_jax.review.markup import from_markdown


def test_paragraphs_tables_and_lists():
    source = (
        "A <b>\nline\n\n| a | b |\n| --- | --- |\n| **1** | 2 |\n\n- x\n- **y** z\n"
    )
    paragraph, table, listed = from_markdown(source)
    assert paragraph == '<p class="small">A &lt;b&gt; line</p>'
    assert "<tr><th>a</th><th>b</th></tr>" in table
    assert table.count("<tr>") == 2
    assert "<td><b>1</b></td><td>2</td>" in table
    assert listed == "<ul><li>x</li><li><b>y</b> z</li></ul>"


def test_nothing_gives_nothing():
    assert list(from_markdown("\n \n")) == []


def test_markup_in_cells_stays_text():
    (table,) = from_markdown("| **<script>** |\n| --- |\n| a & b |\n")
    assert "<b>&lt;script&gt;</b>" in table
    assert "a &amp; b" in table
