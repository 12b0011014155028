"""A turn that tries everything: what was said of answers becomes candidates of several kinds, and at most one release.

In the order in which it happens, a file each: `curate` (what is learned from, without repetitions, personal data and
whatever the comparison asks), or `synthetic` where nobody asked yet; the candidates (`retrieval` for assistants,
`typed` for typed tasks); `race` (on the dev questions, losers leave early); `flow` (the winner against what is live,
on questions that nothing has seen, under the error rate that all turns share; promotion); `page` (the report).
"""
