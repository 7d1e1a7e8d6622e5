-- The history database. Times are Julian dates (UTC), angles degrees (ICRS).

-- One row an exposure, for ever: the ledger, and what packets say of an exposure that covered a
-- place without a detection there. The columns from fid on are NULL where no image was subtracted.
CREATE TABLE exposures (
    number      INTEGER PRIMARY KEY,  -- in the order in which they were first recorded
    id          TEXT NOT NULL UNIQUE, -- 20261124-031522.120
    jd          REAL NOT NULL,        -- shutter open
    file        TEXT NOT NULL,        -- the file that it came in
    state       TEXT NOT NULL CHECK (state IN ('done', 'deferred')),
    reason      TEXT NOT NULL,        -- why it made no alerts, or why it waits; else empty
    alerts      INTEGER NOT NULL,
    spool       INTEGER,              -- sequence number of its spool file
    fid         INTEGER,              -- from here to rbversion: named as in packets
    pid         INTEGER,
    diffmaglim  REAL,
    pdiffimfilename TEXT,
    programpi   TEXT,
    programid   INTEGER,
    nid         INTEGER,
    rcid        INTEGER,
    field       INTEGER,
    magzpsci    REAL,
    magzpsciunc REAL,
    magzpscirms REAL,
    clrcoeff    REAL,
    clrcounc    REAL,
    rbversion   TEXT,
    ra          REAL,                 -- centre of the frame
    dec         REAL,
    radius      REAL,                 -- from the centre to the farthest corner
    band        INTEGER,              -- declination of the centre, whole degrees, rounded down
    corners     BLOB                  -- four (ra, dec), little-endian doubles, in order around the frame
);
CREATE INDEX exposures_place ON exposures (band, jd) WHERE band IS NOT NULL;

-- Everything that ever had a name. The position is that of the first detection and never moves.
CREATE TABLE objects (
    number      INTEGER PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE, -- NJR26abcdefg
    ra          REAL NOT NULL,
    dec         REAL NOT NULL,
    zone        INTEGER NOT NULL,     -- declination, half minutes of arc from the south pole
    jd          REAL NOT NULL         -- first detection
);
CREATE INDEX objects_place ON objects (zone, ra);

-- One row a detection that became an alert; those of one object lie side by side.
CREATE TABLE detections (
    object      INTEGER NOT NULL REFERENCES objects (number),
    exposure    INTEGER NOT NULL REFERENCES exposures (number),
    candid      INTEGER NOT NULL,
    jd          REAL NOT NULL,
    positive    INTEGER NOT NULL,     -- 1 brightened, 0 faded
    ra          REAL NOT NULL,
    dec         REAL NOT NULL,
    magpsf      REAL,
    sigmapsf    REAL,
    ranr        REAL,
    decnr       REAL,
    tblid       INTEGER,
    nneg        INTEGER,
    nbad        INTEGER,
    ssnamenr    TEXT,
    measured    BLOB NOT NULL,        -- little-endian floats, NaN where absent; see measured.rs
    PRIMARY KEY (object, exposure, candid)
) WITHOUT ROWID;
CREATE INDEX detections_exposure ON detections (exposure);

-- For people: every object with its mean position.
CREATE VIEW objects_seen AS
    SELECT o.name, count(*) AS detections, min(d.jd) AS first_jd, max(d.jd) AS last_jd,
           o.ra + avg(CASE WHEN d.ra - o.ra > 180 THEN d.ra - o.ra - 360
                           WHEN d.ra - o.ra < -180 THEN d.ra - o.ra + 360
                           ELSE d.ra - o.ra END) AS mean_ra,
           avg(d.dec) AS mean_dec
    FROM objects o JOIN detections d ON d.object = o.number GROUP BY o.number;

-- For people: light curves.
CREATE VIEW light_curves AS
    SELECT o.name, d.jd, e.id AS exposure, d.positive, d.magpsf, d.sigmapsf, d.candid
    FROM detections d JOIN objects o ON o.number = d.object JOIN exposures e ON e.number = d.exposure;
