//! World coordinates: TAN, TAN-SIP and TPV.
