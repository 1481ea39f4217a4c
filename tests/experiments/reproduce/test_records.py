"""What is recorded of the tables: the page, the numbers and the frozen rows agree."""

import pytest

from experiments.lib import records
from experiments.lib.reproduction import by_names, settings_of
from tests.lib.cases import cases
from vaejax.base.compare import differences

TABLES = list(records.tables())
RECORDED = [(table, name) for table in TABLES for name in records.records_of(table)]


def test_the_page_is_made_of_the_records():
    assert records.PAGE.read_text() == records.page()
    readme = records.README.read_text()
    assert readme == records.with_short_table(readme)


@pytest.mark.parametrize("table", cases({table.name: table for table in TABLES}))
def test_a_table_is_named_as_its_file(table):
    assert (records.TABLES / f"{table.name}.py").exists()


def test_records_are_of_the_rows_as_they_are():
    for table, name in RECORDED:
        record = records.records_of(table)[name]
        saved, now = (settings_of(part) for part in (record["settings"], by_names(table[name])))
        assert differences(saved, now) == [], name
        row, ours = table[name], record["ours"][table[name].measure]
        values = [result["numbers"][row.measure] for result in record["seeds"].values()]
        assert ours == records.mean_and_error(values)
        assert len(values) == row.num_seeds
        if row.reached is not None:
            assert record["is_reached"] == row.reached.is_met(ours["mean"], row.published.value)
