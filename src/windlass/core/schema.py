"""The tables of a workspace's SQLite file, as numbered migrations. A released migration is never edited again."""

from __future__ import annotations

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE artifacts (
            digest TEXT PRIMARY KEY, kind TEXT NOT NULL, created REAL NOT NULL, size INTEGER NOT NULL,
            files TEXT NOT NULL, card TEXT NOT NULL, run TEXT
        )""",
        # The same content may have several names.
        """CREATE TABLE names (
            name TEXT NOT NULL, version INTEGER NOT NULL, digest TEXT NOT NULL REFERENCES artifacts,
            PRIMARY KEY (name, version), UNIQUE (digest, name)
        )""",
        """CREATE TABLE parents (
            child TEXT NOT NULL REFERENCES artifacts, position INTEGER NOT NULL, role TEXT NOT NULL,
            parent TEXT NOT NULL, PRIMARY KEY (child, position)
        ) WITHOUT ROWID""",
        "CREATE INDEX parents_parent ON parents (parent)",
        """CREATE TABLE runs (
            id TEXT PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, status TEXT NOT NULL, started REAL NOT NULL,
            ended REAL, config TEXT NOT NULL, environment TEXT NOT NULL, seed INTEGER, message TEXT NOT NULL
        )""",
        "CREATE INDEX runs_started ON runs (started)",
        # SQLite has no NaN; NULL stands for it, as a diverged loss is worth recording.
        """CREATE TABLE metrics (
            run TEXT NOT NULL REFERENCES runs, name TEXT NOT NULL, step INTEGER NOT NULL, value REAL, at REAL NOT NULL,
            PRIMARY KEY (run, name, step)
        ) WITHOUT ROWID""",
        # Rows are wide and ids random: a table in order of arrival with a narrow index takes inserts several times
        # faster than one clustered by id. Attributes stand before the texts, which may fill many pages.
        """CREATE TABLE spans (
            trace_id TEXT NOT NULL, span_id TEXT NOT NULL, parent_id TEXT, name TEXT NOT NULL,
            operation TEXT NOT NULL, start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL, status TEXT NOT NULL,
            error TEXT, attributes TEXT NOT NULL, input TEXT, output TEXT, UNIQUE (trace_id, span_id)
        )""",
        "CREATE INDEX spans_roots ON spans (start_ns) WHERE parent_id IS NULL",
        "CREATE INDEX spans_errors ON spans (trace_id) WHERE status = 'error'",
        "CREATE INDEX spans_named_roots ON spans (name, start_ns) WHERE parent_id IS NULL",
        """CREATE TABLE scores (
            id TEXT PRIMARY KEY, subject TEXT NOT NULL, name TEXT NOT NULL, value REAL, source TEXT NOT NULL,
            author TEXT NOT NULL, at REAL NOT NULL, comment TEXT NOT NULL, error TEXT, metadata TEXT NOT NULL,
            CHECK ((value IS NULL) = (error IS NOT NULL))
        )""",
        "CREATE INDEX scores_subject ON scores (subject, at)",
        "CREATE INDEX scores_name ON scores (name, at)",
        "CREATE INDEX scores_at ON scores (at)",
        """CREATE TABLE releases (
            id INTEGER PRIMARY KEY AUTOINCREMENT, task TEXT NOT NULL, variant TEXT NOT NULL, previous TEXT,
            action TEXT NOT NULL, reason TEXT NOT NULL, experiment TEXT, at REAL NOT NULL
        )""",
        "CREATE INDEX releases_task ON releases (task, id)",
        "CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    ),
    (
        # Who used a prompt: few spans have one, so the index is small and others do not pay for it.
        """CREATE INDEX spans_prompts ON spans (json_extract(attributes, '$."windlass.prompt.digest"'), start_ns)
            WHERE json_extract(attributes, '$."windlass.prompt.digest"') IS NOT NULL""",
    ),
    (
        # What happened, in its order: nothing in it is ever changed.
        """CREATE TABLE log (
            stream TEXT NOT NULL, id INTEGER NOT NULL, at REAL NOT NULL, value TEXT NOT NULL, PRIMARY KEY (stream, id)
        ) WITHOUT ROWID""",
    ),
)
