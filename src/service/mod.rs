//! The daemon and its host: systemd, journal, clock, signals, status.
