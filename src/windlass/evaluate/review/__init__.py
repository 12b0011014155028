"""People's judgement: queues of items, what each person said of them, and how far they agree.

Nothing is stored here, and no page is shown: see `windlass.loop.reviewing` and the studio.
"""
