"""Words for a crossword, each with a hint in words and one of nothing but emoji.

windlass run examples/crossword.py --model ollama:qwen3 --input theme=harbour --input count=5
"""

import emoji
from pydantic import BaseModel, Field, field_validator

from windlass import task


class Entry(BaseModel):
    word: str = Field(pattern="^[A-Z]{3,12}$")
    hint: str = Field(description="A hint in words that does not hold the word itself.")
    picture: str = Field(description="The same hint in two to five emoji, without any other character.")

    @field_validator("picture")
    @classmethod
    def only_emoji(cls, picture: str) -> str:
        count = emoji.emoji_count(picture)
        if not emoji.purely_emoji(picture) or not 2 <= count <= 5:
            raise ValueError(f"{picture!r} is not two to five emoji and nothing else")
        return picture


def fits(entries: list[Entry], count: int) -> None:
    words = [entry.word for entry in entries]
    if len(set(words)) != count:
        raise ValueError(f"there are {len(set(words))} different words, not {count}")
    for entry in entries:
        if entry.word.lower() in entry.hint.lower():
            raise ValueError(f"the hint for {entry.word} holds the word itself")


@task(checks=[fits], temperature=0.8)
def crossword(theme: str, count: int = 5) -> list[Entry]:
    """Find words for a small crossword on this theme."""
