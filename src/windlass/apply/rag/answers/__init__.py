"""From passages to an answer: quoted, read out or written, checked, and withheld where there is none."""
