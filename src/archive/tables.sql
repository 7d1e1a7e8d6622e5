-- The index of one night: where each alert of the archive is, and what one looks for.

CREATE TABLE files (
    number      INTEGER PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE, -- in this folder
    topic       TEXT NOT NULL,
    alerts      INTEGER NOT NULL
);

CREATE TABLE alerts (
    candid      INTEGER NOT NULL,
    object      TEXT NOT NULL,        -- objectId
    jd          REAL NOT NULL,        -- start of the exposure, UTC
    fid         INTEGER,              -- 1 g, 2 r, 3 i
    ra          REAL,                 -- degrees, ICRS
    dec         REAL,
    mag         REAL,                 -- of the change
    mag_err     REAL,
    positive    INTEGER,              -- 1 brightened, 0 faded
    snr         REAL,
    score       REAL,                 -- drb, else rb
    exposure    TEXT,                 -- of the header `exposure`
    file        INTEGER NOT NULL REFERENCES files (number),
    block       INTEGER NOT NULL,     -- where the block begins in the file, bytes
    record      INTEGER NOT NULL,     -- which record of the block
    crc         INTEGER NOT NULL,     -- CRC-32C of the record
    "partition" INTEGER,              -- of the topic; NULL where the index was made again from the files
    "offset"    INTEGER,
    headers     TEXT                  -- of the message, JSON: what Nightjar says beyond the packet
);
CREATE INDEX alerts_candid ON alerts (candid);
CREATE INDEX alerts_object ON alerts (object);
CREATE INDEX alerts_file ON alerts (file);
