//! Concrete inside abstract: whatever the verifier accepts runs without a fault, and at each instruction
//! what registers and stack hold is what the verifier knew of them.
//!
//! `BPFSIM_INSIDE` says how many programs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use std::cell::RefCell;

use bpfsim_abi::ProgType;
use bpfsim_isa::Insn;
use bpfsim_testing::inside::{Held, Inside};
use bpfsim_testing::verdicts::{Dice, Flat};
use bpfsim_verifier::planted::{BUGS, plant};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, TestRunner};

/// Programs where nobody says how many.
const PROGRAMS: u32 = 300;
/// Bugs that let states claim what is not so, and programs of which one shows it.
const UNSOUND: [(&str, u64); 2] = [
    ("tnum: a sum has no carries", 200),
    ("range: a sum that wraps keeps its ends", 100),
];

// nextest gives each test a process; the bug is planted for the whole of it.
#[test]
fn runs_stay_inside_of_what_the_verifier_knew() {
    let inside = Inside::new().unwrap();
    let asked = std::env::var("BPFSIM_INSIDE").ok();
    let cases = asked.map_or(PROGRAMS, |n| n.parse().expect("BPFSIM_INSIDE"));
    let all = RefCell::new((0, Held::default()));
    let config = ProptestConfig {
        cases,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    };
    let result = TestRunner::new(config).run(&vec(any::<u8>(), 200..2000), |bytes| {
        let held = inside.try_random(&mut Dice::bytes(&bytes));
        let held = held.map_err(TestCaseError::fail)?;
        let (accepted, sum) = &mut *all.borrow_mut();
        *accepted += u32::from(held.accepted);
        sum.insns += held.insns;
        sum.stopped += held.stopped;
        Ok(())
    });
    let (accepted, Held { insns, stopped, .. }) = all.into_inner();
    println!(
        "{cases} programs, {accepted} accepted, {insns} instructions held, {stopped} runs stopped"
    );
    if let Err(why) = result {
        panic!("{why}");
    }
    assert!(accepted > cases / 5 && insns > 100 * u64::from(accepted));

    for (what, programs) in UNSOUND {
        plant(BUGS.iter().position(|bug| *bug == what));
        let found = (0..programs).find(|seed| inside.try_random(&mut Dice::seeded(*seed)).is_err());
        plant(None);
        println!("after {found:?} programs: {what}");
        assert!(found.is_some(), "not found: {what}");
    }
}

#[test]
fn what_no_way_reaches_need_not_be_an_instruction() {
    let insns = [
        Insn::new(0xb7, 0, 0, 0, 0),
        Insn::new(0x15, 0, 0, 1, 0),
        // A move with an offset that none has.
        Insn::new(0xbf, 0, 0, 3, 0),
        Insn::new(0x95, 0, 0, 0, 0),
    ];
    let flat = Flat {
        prog_type: ProgType::SchedCls,
        flags: 0,
        insns: insns.to_vec(),
        starts: vec![0],
        globals: 1,
        gpl: true,
        typed: true,
    };
    let inside = Inside::new().unwrap();
    let held = inside.try_program(&flat, &mut Dice::seeded(0)).unwrap();
    assert!(held.accepted && held.insns > 0);
}
