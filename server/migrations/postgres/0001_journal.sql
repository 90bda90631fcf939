-- The one table: every event of the ledger, in order, chained by hash. Rows are only ever added.
CREATE TABLE journal (
    seq    BIGINT NOT NULL PRIMARY KEY,   -- 1, 2, 3, ... without gaps
    at     BIGINT NOT NULL,               -- milliseconds since 1970-01-01 UTC, never falling
    writer TEXT   NOT NULL,               -- which server wrote it
    op     TEXT COLLATE "C",              -- the caller's operation id; one id has one effect
    body   TEXT   NOT NULL,               -- JSON, byte for byte what was hashed
    hash   TEXT   NOT NULL                -- SHA-256 over the hash before and this row, hexadecimal
);

-- "C": an upgrade of the system's locales must not change what is equal.
CREATE UNIQUE INDEX journal_op ON journal (op) WHERE op IS NOT NULL;
