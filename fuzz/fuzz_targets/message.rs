#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kaelix_wal_fuzz::message::run(data));
