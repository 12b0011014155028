"""A CRM record out of messy sales notes: what is not in the notes stays empty, and the quotation must stand in them.

windlass run examples/crm.py --model openai:gpt-5-mini --input "Met Ana (Acme) at the fair, 20 seats, call in May"
"""

from datetime import date
from typing import Literal

from pydantic import BaseModel, EmailStr, Field

from windlass import task


class Record(BaseModel):
    company: str | None = Field(description="As it is written in the notes.")
    contact: str | None
    email: EmailStr | None
    seats: int | None = Field(ge=1)
    stage: Literal["lead", "qualified", "proposal", "won", "lost"]
    next_step: str | None
    due: date | None
    evidence: str = Field(description="The words of the notes, copied exactly, that say the stage.")


def quoted(record: Record, notes: str) -> None:
    if record.evidence not in notes:
        raise ValueError(f"evidence: '{record.evidence}' does not stand in the notes; copy it letter by letter")
    if record.company and record.company not in notes:
        raise ValueError(f"company: '{record.company}' is not named in the notes")


@task(checks=[quoted], max_tokens=500)
def crm_record(notes: str, today: date) -> Record:
    """Fill in a CRM record from a salesperson's notes. Take only what they say; leave out what they do not."""
