-- GPU-seconds of hours that are over, in milliseconds. A row is never changed; two servers that store the same hour write the
-- same rows. `hour` counts hours of UTC since 1970; `tenant` is empty for time that is nobody's.

-- By region, model, class and tenant; the class `wall` is the time for which the devices existed.
CREATE TABLE usage_hours (
    hour      INTEGER NOT NULL,
    region    TEXT    NOT NULL,
    gpu_model TEXT    NOT NULL,
    class     TEXT    NOT NULL,
    tenant    TEXT    NOT NULL,
    ms        INTEGER NOT NULL,
    PRIMARY KEY (hour, region, gpu_model, class, tenant)
) STRICT, WITHOUT ROWID;

-- The same by device.
CREATE TABLE usage_devices (
    hour      INTEGER NOT NULL,
    device    TEXT    NOT NULL,
    node      TEXT    NOT NULL,
    region    TEXT    NOT NULL,
    gpu_model TEXT    NOT NULL,
    class     TEXT    NOT NULL,
    tenant    TEXT    NOT NULL,
    ms        INTEGER NOT NULL,
    PRIMARY KEY (hour, device, node, region, gpu_model, class, tenant)
) STRICT, WITHOUT ROWID;
