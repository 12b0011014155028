"""The exam of the documentation that every Python carries: as large and as clean as the comparison needs."""

from __future__ import annotations

import pytest

from windlass.core.readers import PythonDocs, ReadReport
from windlass.evaluate.exam.deriving import derive
from windlass.evaluate.exam.items import count


@pytest.mark.slow
def test_python_s_own_documentation_makes_a_full_exam() -> None:
    documents = list(PythonDocs().documents(ReadReport()))
    exam = derive(documents)
    counts = count(exam.items)
    assert 1500 <= sum(split["answerable"] for split in counts.values()) <= 3000
    assert counts["test"]["answerable"] >= 600
    assert counts["test"]["unanswerable"] >= 60
    assert counts["dev"]["answerable"] >= 150
    assert counts["test"]["clusters"] >= 100
    assert not exam.warnings
    texts = {document.id: document.text for document in documents}
    assert all(texts[item.source][item.start : item.end].strip() for item in exam.items)
    stays = len(documents) - len(exam.withheld)
    pages = sum(document.metadata["kind"] != "source" for document in documents)
    assert stays > 0.75 * pages, "withholding must not cost the assistant a large part of what it knows"
