-- Since when usage by device is kept, once older rows were dropped: one row at most. Hours of UTC since 1970. It is moved
-- forward before rows are deleted, so that nobody is told a sum of what is half gone.
CREATE TABLE usage_kept (
    one          BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
    devices_from BIGINT NOT NULL
);
