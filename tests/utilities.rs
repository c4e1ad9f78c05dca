//! What helps to set up a pool: other machines over ssh, topology files, the service.

mod lab;
