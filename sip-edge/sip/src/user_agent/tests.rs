//! Tests of the user agent, in virtual time.
