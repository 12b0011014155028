"""Better prompts by measurement: a search for candidates, and the gate on items that the search has never seen."""
