-- GPU-seconds of hours that are over, in milliseconds. A row is never changed; two servers that store the same hour write the
-- same rows. `hour` counts hours of UTC since 1970; `tenant` is empty for time that is nobody's.

-- By region, model, class and tenant; the class `wall` is the time for which the devices existed.
CREATE TABLE usage_hours (
    hour      BIGINT NOT NULL,
    region    TEXT COLLATE "C" NOT NULL,
    gpu_model TEXT COLLATE "C" NOT NULL,
    class     TEXT COLLATE "C" NOT NULL,
    tenant    TEXT COLLATE "C" NOT NULL,
    ms        BIGINT NOT NULL,
    PRIMARY KEY (hour, region, gpu_model, class, tenant)
);

-- The same by device.
CREATE TABLE usage_devices (
    hour      BIGINT NOT NULL,
    device    TEXT COLLATE "C" NOT NULL,
    node      TEXT COLLATE "C" NOT NULL,
    region    TEXT COLLATE "C" NOT NULL,
    gpu_model TEXT COLLATE "C" NOT NULL,
    class     TEXT COLLATE "C" NOT NULL,
    tenant    TEXT COLLATE "C" NOT NULL,
    ms        BIGINT NOT NULL,
    PRIMARY KEY (hour, device, node, region, gpu_model, class, tenant)
);
