//! Alert packets as ZTF writes them.
