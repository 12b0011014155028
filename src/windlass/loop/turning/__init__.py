"""A turn: what was said of answers becomes candidates of several kinds, and at most one release.

`turn` is where it begins, for an assistant or a typed task, and `flow` is the whole of it from candidates to release.
A file each, in the order in which it happens:

- what is learned from: `heard` (what users said of a typed task), `synthetic` (made up, where nobody asked yet),
  `curate` (without repetitions, personal data and whatever the comparison asks);
- what is tried, as far as `spending` allows: `ground` (what the flow needs of either kind), `retrieval` with
  `candidate` for assistants, `typed` with `students` for typed tasks;
- who is worth a comparison: `race` (on the dev questions, losers leave early);
- what is better: `comparison` (on questions that nothing has seen, under the error rate that all turns share);
- what came of it: `page`, `page_html` and `words`, kept by `report`.

`one_recipe` is a turn with one candidate and no race, as the demo takes it, and `users` simulates who asks.
"""
