"""What an answer must obey: schemas, expressions, choices and grammars, and how tokens spell texts."""
