-- The state after the last archived row: what stands for the rows that were moved into archives. A row of the journal
-- vouches for it by its digest; one that no row vouches for is not used.
CREATE TABLE base (
    seq    BIGINT NOT NULL PRIMARY KEY,   -- last archived row
    at     BIGINT NOT NULL,               -- its time, milliseconds since 1970-01-01 UTC
    head   TEXT   NOT NULL,               -- its hash, hexadecimal
    format BIGINT NOT NULL,               -- grows with every change of what a state's JSON means
    digest TEXT   NOT NULL,               -- SHA-256 of the state's text, hexadecimal
    state  TEXT   NOT NULL                -- JSON
);
