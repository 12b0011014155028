"""What judges answers by rules that a program can check: verifiable rewards.

| reward    | column of the row | 1 when the answer                                                     | else |
|-----------|-------------------|-----------------------------------------------------------------------|------|
| `number`  | `answer`          | ends in that number, or holds it in its last `\\boxed{}`               | 0    |
| `json`    | perhaps `schema`  | is nothing but JSON, valid under the schema                           | 0    |
| `pattern` | `pattern`         | matches the regular expression from its first to its last character  | 0    |
| `cases`   | `cases`           | is code whose calls give what they shall: the share of them that do   | 0    |
| `tests`   | `tests`           | is code after which these tests run to their end                      | 0    |

Whatever runs text that a model wrote does it in `core.sandbox`.
"""
