"""Questions over many runs: sweeps, searches, what they say, and how sure it is.

Reading order: `schema` and `load` (the study file), `fields`, `axes`, `expression`, `points` (what is run), `worker`,
`engines`, `journal`, `runner` (running it, never losing work), `results` and `sweep` (rows), `statistics` and `roots`
(intervals), `insight` with `sensitivity`, `break_even`, `landscape` (what the rows say), `search` with `capacity`,
`cheapest`, `front`, and `compare` (run folders).
"""
