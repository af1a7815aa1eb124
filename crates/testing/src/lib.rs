//! Generators and oracles shared by bpfsim's tests
