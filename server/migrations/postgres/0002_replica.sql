-- Which servers are there: each says so every few seconds. No part of the ledger.
CREATE TABLE replica (
    writer  TEXT   NOT NULL PRIMARY KEY,  -- the name that its journal rows carry
    seen_at BIGINT NOT NULL               -- milliseconds since 1970-01-01 UTC by the database's clock
);
