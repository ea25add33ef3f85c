//! The state machine of one peer: routes between its parts.
