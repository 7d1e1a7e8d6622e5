//! What was seen before: the ledger of exposures, objects, detections and coverage.
