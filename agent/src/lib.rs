//! The CRN hypervisor agent: instances, their lives, the API and the command line.
