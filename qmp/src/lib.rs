//! A typed async client for QEMU's monitor (QMP) and guest agent (QGA).
