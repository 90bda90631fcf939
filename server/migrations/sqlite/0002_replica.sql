-- Which servers are there. One server has this file alone, so it stays empty; it is here because both databases have one
-- schema.
CREATE TABLE replica (
    writer  TEXT    NOT NULL PRIMARY KEY,  -- the name that its journal rows carry
    seen_at INTEGER NOT NULL               -- milliseconds since 1970-01-01 UTC by the database's clock
) STRICT;
