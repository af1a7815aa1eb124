#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bpfsim_testing::fuzz_btf::run_core(bytes));
